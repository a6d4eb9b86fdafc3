/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/confine.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>

static int capabilities_keep(const cap_value_t *keep, size_t n)
{
	cap_t caps = cap_init(); /* empty */
	int ret = 0;

	if (caps == NULL ||
	    (n > 0 && (cap_set_flag(caps, CAP_PERMITTED, (int)n, keep, CAP_SET) < 0 ||
		       cap_set_flag(caps, CAP_EFFECTIVE, (int)n, keep, CAP_SET) < 0)) ||
	    cap_set_proc(caps) < 0)
		ret = -errno;
	cap_free(caps);
	return ret;
}

/* What somebody who has taken over the process would want next. */
static int syscalls_deny(void)
{
#ifdef SALLYPORT_SANITIZED
	return 0; /* the leak check at the end needs ptrace */
#else
	static const int calls[] = {
		SCMP_SYS(execve),
		SCMP_SYS(execveat),
		SCMP_SYS(ptrace),
		SCMP_SYS(process_vm_readv),
		SCMP_SYS(process_vm_writev),
		SCMP_SYS(mount),
		SCMP_SYS(umount2),
		SCMP_SYS(pivot_root),
		SCMP_SYS(chroot),
		SCMP_SYS(setns),
		SCMP_SYS(unshare),
		SCMP_SYS(init_module),
		SCMP_SYS(finit_module),
		SCMP_SYS(delete_module),
		SCMP_SYS(kexec_load),
		SCMP_SYS(kexec_file_load),
		SCMP_SYS(bpf),
		SCMP_SYS(perf_event_open),
		SCMP_SYS(userfaultfd),
		SCMP_SYS(keyctl),
		SCMP_SYS(add_key),
		SCMP_SYS(request_key),
		SCMP_SYS(reboot),
		SCMP_SYS(swapon),
		SCMP_SYS(swapoff),
		SCMP_SYS(open_by_handle_at),
		SCMP_SYS(io_uring_setup),
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int ret = ctx == NULL ? -ENOMEM : 0;

	for (size_t i = 0; ret == 0 && i < sizeof(calls) / sizeof(calls[0]); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), calls[i], 0);
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret;
#endif
}

int confine(const cap_value_t *keep, size_t n, struct err *err)
{
	int ret = capabilities_keep(keep, n);

	if (ret == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		ret = -errno;
	if (ret == 0)
		ret = syscalls_deny();
	return ret < 0 ? err_set(err, ret, "privileges cannot be given up: %s", strerror(-ret)) : 0;
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* confine: give up what a control plane process does not need, for good. Call once, after everything that needs
 * privileges is open, before anything from outside is read. */
#pragma once

#include <stddef.h>
#include <sys/capability.h>

#include "config/base/err.h"

/**
 * Keep only these capabilities; no new privileges ever (execve of set-uid files); no execve, ptrace, mount, namespace,
 * module, BPF, keyring or reboot system call (they answer EPERM).
 * @param keep  may be NULL when n is 0
 * @return 0 or -errno; text in err. On error the process is not confined and should end
 */
int confine(const cap_value_t *keep, size_t n, struct err *err);

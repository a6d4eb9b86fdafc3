/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/ctl/commands.h"

#include <errno.h>
#include <string.h>

#include "controlplane/ctl/policy_file.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/stats.h"
#include "controlplane/ctl/top.h"
#include "controlplane/ctl/trace.h"

#define DEVICE_OPTIONS (OPT_BIT(OPT_URI) | OPT_BIT(OPT_DNS) | OPT_BIT(OPT_CN))

static int put_text(json_t *req, const char *key, const char *text, struct err *err)
{
	if (text != NULL && json_object_set_new(req, key, json_string(text)) < 0)
		return err_set(err, -EINVAL, "%s is not UTF-8 text", key);
	return 0;
}

static int build_device(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	int ret = args_device(req, word[0], a, err);

	return ret < 0 ? ret : put_text(req, "reason", a->value[OPT_REASON], err);
}

static int build_enrol(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	int ret = args_device(req, word[0], a, err);

	if (ret == 0 && a->value[OPT_CERT] != NULL)
		ret = args_digest(req, "cert_sha256", a->value[OPT_CERT], err);
	return ret;
}

static int build_revoke(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	int ret = 0;

	if (word[0] == NULL && a->value[OPT_CERT] == NULL && a->value[OPT_SERIAL] == NULL)
		return err_set(err, -EINVAL, "name a device, --cert, or --issuer and --serial");
	if (word[0] != NULL)
		ret = args_device(req, word[0], a, err);
	if (ret == 0 && a->value[OPT_CERT] != NULL)
		ret = args_digest(req, "cert_sha256", a->value[OPT_CERT], err);
	if (ret == 0 && a->value[OPT_ISSUER] != NULL)
		ret = args_digest(req, "issuer_sha256", a->value[OPT_ISSUER], err);
	if (ret == 0)
		ret = put_text(req, "serial", a->value[OPT_SERIAL], err);
	return ret < 0 ? ret : put_text(req, "reason", a->value[OPT_REASON], err);
}

static int need(const struct args *a, enum args_option opt, struct err *err)
{
	return a->value[opt] != NULL
		       ? 0
		       : err_set(err, -EINVAL, "--%s is missing", args_option_name(opt));
}

static int build_certify(json_t *req, const struct args *a, const char *const *word,
			 struct err *err)
{
	(void)word;
	if (need(a, OPT_DIGEST, err) < 0 || need(a, OPT_NAME, err) < 0 ||
	    need(a, OPT_VERSION, err) < 0 ||
	    args_digest(req, "digest", a->value[OPT_DIGEST], err) < 0 ||
	    put_text(req, "name", a->value[OPT_NAME], err) < 0 ||
	    put_text(req, "version", a->value[OPT_VERSION], err) < 0)
		return -EINVAL;
	return a->value[OPT_FOR] == NULL ? 0 : args_duration(req, "for_s", a->value[OPT_FOR], err);
}

static int build_software_revoke(json_t *req, const struct args *a, const char *const *word,
				 struct err *err)
{
	int ret = args_digest(req, "digest", word[0], err);

	return ret < 0 ? ret : put_text(req, "reason", a->value[OPT_REASON], err);
}

static int build_attest(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	if (args_device(req, word[0], a, err) < 0 || need(a, OPT_DIGEST, err) < 0 ||
	    need(a, OPT_TIER, err) < 0 || need(a, OPT_FOR, err) < 0 ||
	    args_digest(req, "digest", a->value[OPT_DIGEST], err) < 0 ||
	    put_text(req, "tier", a->value[OPT_TIER], err) < 0)
		return -EINVAL;
	return args_duration(req, "for_s", a->value[OPT_FOR], err);
}

static int build_flows(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	const char *by = a->value[OPT_BY];

	(void)word;
	if (put_text(req, "device", a->value[OPT_DEVICE], err) < 0 ||
	    put_text(req, "segment", a->value[OPT_SEGMENT], err) < 0 ||
	    put_text(req, "rule", a->value[OPT_RULE], err) < 0 ||
	    put_text(req, "state", a->value[OPT_STATE], err) < 0)
		return -EINVAL;
	if (by != NULL && strcmp(by, "packets") != 0 && strcmp(by, "bytes") != 0)
		return err_set(err, -EINVAL, "--by is packets or bytes");
	if (by != NULL && a->value[OPT_TOP] == NULL)
		return err_set(err, -EINVAL, "--by is for --top N");
	if (put_text(req, "by", by, err) < 0)
		return -EINVAL;
	if (a->value[OPT_TOP] != NULL &&
	    args_number(req, "top", a->value[OPT_TOP], 1, 1024, err) < 0)
		return -EINVAL;
	return a->value[OPT_LIMIT] == NULL
		       ? 0
		       : args_number(req, "limit", a->value[OPT_LIMIT], 1, 1000000, err);
}

static int build_why(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	if (word[1] == NULL) {
		if (a->value[OPT_SPORT] != NULL)
			return err_set(err, -EINVAL, "--sport is of a flow: SRC DST SERVICE");
		return put_text(req, "device", word[0], err);
	}
	if (word[2] == NULL)
		return err_set(err, -EINVAL,
			       "a flow is SRC DST SERVICE, as in 10.1.0.5 10.20.0.10 tcp/554");
	if (put_text(req, "src", word[0], err) < 0 || put_text(req, "dst", word[1], err) < 0 ||
	    args_service(req, word[2], err) < 0)
		return -EINVAL;
	return a->value[OPT_SPORT] == NULL
		       ? 0
		       : args_number(req, "sport", a->value[OPT_SPORT], 0, 65535, err);
}

static int build_port(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	(void)a;
	return put_text(req, "name", word[0], err);
}

static int build_log(json_t *req, const struct args *a, const char *const *word, struct err *err)
{
	const char *at = a->value[OPT_AT];

	(void)word;
	if (at != NULL && strcmp(at, "gateway") != 0 && strcmp(at, "controller") != 0)
		return err_set(err, -EINVAL, "--at is gateway or controller");
	if (a->value[OPT_AFTER] != NULL &&
	    args_number(req, "after", a->value[OPT_AFTER], 0, INT64_MAX, err) < 0)
		return -EINVAL;
	return a->value[OPT_LIMIT] == NULL
		       ? 0
		       : args_number(req, "limit", a->value[OPT_LIMIT], 1, 10000, err);
}

#define CERT_SELECTORS (OPT_BIT(OPT_CERT) | OPT_BIT(OPT_ISSUER) | OPT_BIT(OPT_SERIAL))
#define FLOWS_OPTIONS                                                                              \
	(OPT_BIT(OPT_DEVICE) | OPT_BIT(OPT_LIMIT) | OPT_BIT(OPT_SEGMENT) | OPT_BIT(OPT_RULE) |     \
	 OPT_BIT(OPT_STATE) | OPT_BIT(OPT_TOP) | OPT_BIT(OPT_BY))
#define CERTIFY_OPTIONS                                                                            \
	(OPT_BIT(OPT_DIGEST) | OPT_BIT(OPT_NAME) | OPT_BIT(OPT_VERSION) | OPT_BIT(OPT_FOR))

const struct ctl_command ctl_commands[] = {
	{"status", "", "how the gateway is: links, controller, sessions, drops, alarms",
	 "sallyctl status", PEER_AGENT, 0, 0, 0, "status", NULL, show_status, NULL},
	{"devices", "", "every device that the gateway knows, and what it may do now",
	 "sallyctl devices", PEER_AGENT, 0, 0, 0, "devices", NULL, show_devices, NULL},
	{"bindings", "", "which address, MAC, port and VLAN belongs to which device",
	 "sallyctl bindings", PEER_AGENT, 0, 0, 0, "bindings", NULL, show_bindings, NULL},
	{"segments", "", "segments, networks and rules in force", "sallyctl segments", PEER_AGENT,
	 0, 0, 0, "segments", NULL, show_segments, NULL},
	{"flows",
	 "[--device DEVICE] [--segment NAME] [--rule NAME] [--state STATE] [--limit N | --top N "
	 "[--by packets|bytes]]",
	 "flows in the dataplane, and whether each is still allowed; --top: the largest",
	 "sallyctl flows --segment cameras --top 10 --by bytes", PEER_AGENT, 0, 0, FLOWS_OPTIONS,
	 "flows", build_flows, show_flows, NULL},
	{"stats", "[ports|lcores|rules|pairs|devices|reasons] [--device DEVICE] [--rate]",
	 "what passed and what was dropped: a port, core, rule, pair of segments, device, reason",
	 "sallyctl stats pairs --rate", PEER_NONE, 0, 1, OPT_BIT(OPT_DEVICE) | OPT_BIT(OPT_RATE),
	 NULL, NULL, NULL, stats_run},
	{"top", "[--by packets|bytes] [--once | -n TIMES]",
	 "a live view: rates, drops, cores, ports, the largest rules, pairs, devices and flows",
	 "sallyctl top --by packets", PEER_NONE, 0, 0,
	 OPT_BIT(OPT_BY) | OPT_BIT(OPT_ONCE) | OPT_BIT(OPT_NUMBER), NULL, NULL, NULL, top_run},
	{"trace",
	 "[src A] [dst A] [host A] [proto P] [sport N] [dport N] [tcp/N|udp/N] [device D] "
	 "[port NAME] [vlan N] [drop] [reason R] [-n COUNT] [--for 30s]",
	 "the way of the next packets through the gateway, stage by stage, with the reason at the "
	 "end",
	 "sallyctl trace src 10.7.0.11 dst 10.20.0.10 tcp/554 -n 3", PEER_NONE, 0, ARGS_WORDS_MAX,
	 OPT_BIT(OPT_NUMBER) | OPT_BIT(OPT_FOR), NULL, NULL, NULL, trace_run},
	{"why", "DEVICE | SRC DST SERVICE [--sport N]",
	 "why a device stands as it does, or why a flow passes or not, down to the rule",
	 "sallyctl why 10.1.0.5 10.20.0.10 tcp/554", PEER_AGENT, 1, 3, OPT_BIT(OPT_SPORT), "why",
	 build_why, show_why, NULL},
	{"enrol", "DEVICE [--cert sha256:HEX]",
	 "let a device in by this identity; --cert: with this certificate only",
	 "sallyctl enrol spiffe://plant-7/camera/12", PEER_CONTROLLER, 1, 1,
	 DEVICE_OPTIONS | OPT_BIT(OPT_CERT), "enrol", build_enrol, show_receipts, NULL},
	{"unenrol", "DEVICE", "forget a device; it is refused from now on",
	 "sallyctl unenrol spiffe://plant-7/camera/12", PEER_CONTROLLER, 1, 1, DEVICE_OPTIONS,
	 "unenrol", build_device, show_receipts, NULL},
	{"revoke", "DEVICE | --cert sha256:HEX | --issuer sha256:HEX --serial HEX [--reason TEXT]",
	 "revoke a device's certificates for good: all issued until now, or the one named",
	 "sallyctl revoke spiffe://plant-7/camera/12 --reason stolen", PEER_CONTROLLER, 0, 1,
	 DEVICE_OPTIONS | CERT_SELECTORS | OPT_BIT(OPT_REASON), "revoke", build_revoke,
	 show_receipts, NULL},
	{"quarantine", "DEVICE [--reason TEXT]",
	 "put a device into the quarantine segment until it is restored",
	 "sallyctl quarantine spiffe://plant-7/camera/12 --reason 'scans ports'", PEER_CONTROLLER,
	 1, 1, DEVICE_OPTIONS | OPT_BIT(OPT_REASON), "quarantine", build_device, show_receipts,
	 NULL},
	{"restore", "DEVICE", "end a quarantine (never a revocation)",
	 "sallyctl restore spiffe://plant-7/camera/12", PEER_CONTROLLER, 1, 1, DEVICE_OPTIONS,
	 "restore", build_device, show_receipts, NULL},
	{"software certify", "--digest sha256:HEX --name NAME --version VERSION [--for 90d]",
	 "certify a software by its digest",
	 "sallyctl software certify --digest sha256:9f86... --name camera-fw "
	 "--version 4.2 --for 90d",
	 PEER_CONTROLLER, 0, 0, CERTIFY_OPTIONS, "software_certify", build_certify, show_receipts,
	 NULL},
	{"software revoke", "DIGEST [--reason TEXT]", "revoke a software's certification for good",
	 "sallyctl software revoke sha256:9f86... --reason CVE-2026-1234", PEER_CONTROLLER, 1, 1,
	 OPT_BIT(OPT_REASON), "software_revoke", build_software_revoke, show_receipts, NULL},
	{"attest", "DEVICE --digest sha256:HEX --tier affirming|warning|contraindicated --for 10m",
	 "record what a verifier found about a device: the software it runs, and how it may be "
	 "trusted",
	 "sallyctl attest spiffe://plant-7/camera/12 --digest sha256:9f86... --tier affirming "
	 "--for 10m",
	 PEER_CONTROLLER, 1, 1,
	 DEVICE_OPTIONS | OPT_BIT(OPT_DIGEST) | OPT_BIT(OPT_TIER) | OPT_BIT(OPT_FOR), "attest",
	 build_attest, show_receipts, NULL},
	{"policy check", "FILE", "check a policy file, without any daemon; every error is listed",
	 "sallyctl policy check segments.cfg", PEER_NONE, 1, 1, 0, NULL, NULL, NULL,
	 policy_check_run},
	{"policy apply", "FILE", "check a policy file and put it in force everywhere",
	 "sallyctl policy apply segments.cfg", PEER_CONTROLLER, 1, 1, 0, "policy_apply", NULL,
	 show_receipts, policy_apply_run},
	{"port list", "", "ports with side, driver, link, MAC, kernel shadow and VLANs",
	 "sallyctl port list", PEER_AGENT, 0, 0, 0, "port_list", NULL, show_port_list, NULL},
	{"port add", "NAME",
	 "read gateway.cfg again and take this port from it, while all else runs",
	 "sallyctl port add cam2", PEER_AGENT, 1, 1, 0, "port_add", build_port, show_port, NULL},
	{"port remove", "NAME", "end a port's bindings and close it, while all else runs",
	 "sallyctl port remove cam2", PEER_AGENT, 1, 1, 0, "port_remove", build_port, show_port,
	 NULL},
	{"listeners", "",
	 "listeners and TLS workers: sessions, handshakes, who was refused or turned away",
	 "sallyctl listeners", PEER_AGENT, 0, 0, 0, "listeners", NULL, show_listeners, NULL},
	{"upstreams", "", "where sessions go: who is up, connections, checks, the last error",
	 "sallyctl upstreams", PEER_AGENT, 0, 0, 0, "upstreams", NULL, show_upstreams, NULL},
	{"reload", "",
	 "bring gateway.cfg's listeners, their files and ports into force everywhere, and the "
	 "policy's "
	 "file",
	 "sallyctl reload", PEER_AGENT, 0, 0, 0, "reload", NULL, show_reload, NULL},
	{"log", "[--after REVISION] [--limit N] [--at gateway|controller]",
	 "decisions in order, with their receipts; as the gateway has them, or as the controller "
	 "signed them",
	 "sallyctl log --at controller --limit 20", PEER_AGENT, 0, 0,
	 OPT_BIT(OPT_AFTER) | OPT_BIT(OPT_LIMIT) | OPT_BIT(OPT_AT), "log", build_log, show_log,
	 NULL},
	{"state", "",
	 "what the controller's log adds up to: devices, software, revocations, gateways",
	 "sallyctl state", PEER_CONTROLLER, 0, 0, 0, "state", NULL, show_state, NULL},
};

const unsigned ctl_n_commands = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

const struct ctl_command *ctl_find(const struct args *a, unsigned *n_name)
{
	for (unsigned i = 0; i < ctl_n_commands; i++) {
		const char *name = ctl_commands[i].name, *blank = strchr(name, ' ');
		size_t first = blank != NULL ? (size_t)(blank - name) : strlen(name);

		if (a->n_words == 0 || strlen(a->word[0]) != first ||
		    memcmp(a->word[0], name, first) != 0)
			continue;
		*n_name = blank != NULL ? 2 : 1;
		if (blank == NULL || (a->n_words > 1 && strcmp(a->word[1], blank + 1) == 0))
			return &ctl_commands[i];
	}
	return NULL;
}

int ctl_check(const struct ctl_command *c, const struct args *a, unsigned n_name, struct err *err)
{
	unsigned words = a->n_words - n_name;

	for (int i = 0; i < OPT_COUNT; i++) {
		if ((a->given & OPT_BIT(i) & ~(OPTS_GLOBAL | c->options)) != 0)
			return err_set(err, -EINVAL, "%s has no option --%s", c->name,
				       args_option_name(i));
	}
	if (words < c->min_words)
		return err_set(err, -EINVAL, "an argument is missing");
	if (words > c->max_words)
		return err_set(err, -EINVAL, "one argument too many: %s",
			       a->word[n_name + c->max_words]);
	return 0;
}

void ctl_help(FILE *to)
{
	fputs("usage: sallyctl [options] COMMAND ...\n\n", to);
	for (unsigned i = 0; i < ctl_n_commands; i++)
		fprintf(to, "  %-17s %s\n", ctl_commands[i].name, ctl_commands[i].what);
	fputs("\n"
	      "A DEVICE is named by its certificate's identity: spiffe://... (URI), "
	      "cam.plant.example (DNS name) or\n"
	      "a common name; --uri, --dns, --cn say which where the form does not.\n"
	      "\n"
	      "  --json             the daemon's answer as one line of JSON\n"
	      "  --agent SOCK       the gateway's socket (else $SALLYCTL_AGENT, "
	      "/run/sallyport/api.sock)\n"
	      "  --controller SOCK  the controller's socket (else $SALLYCTL_CONTROLLER,\n"
	      "                     /run/sallyport/controller.sock)\n"
	      "  --timeout S        wait so many seconds for an answer (default 20)\n"
	      "  --help             this text; after a command: about that command, with an "
	      "example\n"
	      "  --version\n"
	      "\n"
	      "exit: 0 done, 1 refused or not in force everywhere, 2 usage, 3 daemon not reached, "
	      "4 errors in the policy\n",
	      to);
}

void ctl_help_command(const struct ctl_command *c, FILE *to)
{
	fprintf(to, "usage: sallyctl %s%s%s\n\n%s\n\nexample: %s\n", c->name,
		c->args[0] != '\0' ? " " : "", c->args, c->what, c->example);
}

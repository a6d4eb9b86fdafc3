/* SPDX-License-Identifier: GPL-3.0-or-later */
/* show: responses of the daemons as text for people. A member that is missing shows as "-": a newer or older daemon is
 * no reason to fail. Each function prints to `to` and returns the exit code. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* Exit codes of sallyctl. */
enum ctl_exit {
	CTL_OK = 0,
	CTL_REFUSED = 1, /* the daemon refused, or a decision is not in force everywhere */
	CTL_USAGE = 2,
	CTL_UNREACHABLE = 3, /* no daemon there, or no answer in time */
	CTL_POLICY = 4, /* errors in the policy text */
};

int show_status(const json_t *r, FILE *to);
int show_devices(const json_t *r, FILE *to);
int show_bindings(const json_t *r, FILE *to);
int show_segments(const json_t *r, FILE *to);
int show_flows(const json_t *r, FILE *to);
int show_why(const json_t *r, FILE *to);
int show_log(const json_t *r, FILE *to);
int show_port_list(const json_t *r, FILE *to); /* show_port.c */
int show_port(const json_t *r, FILE *to);
int show_listeners(const json_t *r, FILE *to); /* show_tls.c */
int show_upstreams(const json_t *r, FILE *to);
int show_reload(const json_t *r, FILE *to);
int show_state(const json_t *r, FILE *to);
/** "revision 12 in force on gw1 in 412 µs: 1 session and 2 flows closed, 0 untracked", a line a gateway.
 * CTL_REFUSED if a gateway that was connected did not put it in force. */
int show_receipts(const json_t *r, FILE *to);

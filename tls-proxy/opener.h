/* SPDX-License-Identifier: GPL-3.0-or-later */
/* opener: a small process beside each TLS worker, forked before the worker reads any secret and drops its privileges. At
 * a reload it opens what gateway.cfg names - and nothing else, whatever it is asked - and hands the descriptors over. It
 * keeps CAP_DAC_READ_SEARCH alone, opens for reading only (seccomp), never reads a certificate or a
 * key itself, and has no address but one end of a socket pair: it ends when the worker does. */
#pragma once

#include "config/gateway.h"
#include "tls-proxy/files.h"

struct opener {
	int fd; /* of the socket pair; 0: there is none */
};

/** Fork it. Before EAL, threads, and secrets. @return 0 or -errno */
int opener_start(struct opener *o, const char *config, struct err *err);
void opener_stop(struct opener *o); /* takes an empty one */

/**
 * gateway.cfg as it is now, and the files that its listeners name. Takes a few ms, blocks for 5 s at most.
 * @param[out] cfg  gw_config_free()
 * @param[out] files  files_fini()
 * @return 0; -EINVAL with what is wrong in gateway.cfg; -errno
 */
int opener_ask(struct opener *o, struct gw_config **cfg, struct files *files, struct err *err);

/** The opener's main loop, for tests too: answer until the other end is closed. */
void opener_serve(int fd, const char *config);

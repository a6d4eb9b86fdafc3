/* SPDX-License-Identifier: GPL-3.0-or-later */
/* telemetry: counters through DPDK's own telemetry socket (dpdk-telemetry.py): /sallyport/stats, /sallyport/reasons,
 * /sallyport/lcores[,N], /sallyport/ports[,NAME]. The socket lies in the agent's run_dir, in a folder that only root
 * can enter. Its threads are DPDK's; what is called here only loads counters, and never while the state goes. */
#pragma once

#include "dataplane/state.h"

/** Where the EAL is to put its socket: beside the agent's. Before the EAL starts. @param agent  the agent's socket */
void telemetry_place(const char *agent);
/** Answer for this state from now on. @return 0 or -errno */
int telemetry_start(const struct state *st);
void telemetry_stop(void); /* on return nobody reads the state any more; not started is a no-op */

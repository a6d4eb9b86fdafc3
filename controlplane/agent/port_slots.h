/* SPDX-License-Identifier: GPL-3.0-or-later */
/* port_slots: which port has which index. The dataplane knows ports by index, so a port keeps its own as long as it is there,
 * also when others before it go, and when the agent starts anew. Remembered in run_dir, which ends with the boot. */
#pragma once

#include "config/base/err.h"
#include "config/gateway.h"

/** Put the ports of a fresh configuration where they were ("INDEX NAME" a line); new ones take what is free. A line that
 * makes no sense is left out. Pure. */
void port_slots_order(struct gw_config *cfg, const char *text);

/** The same with what port_slots_save() left; nothing there: they stay in the file's order. @return 0 or -errno */
int port_slots_load(struct gw_config *cfg, struct err *err);
int port_slots_save(const struct gw_config *cfg, struct err *err); /* 0 or -errno */

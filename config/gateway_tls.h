/* SPDX-License-Identifier: GPL-3.0-or-later */
/* gateway_tls: the keys of gateway.cfg about TLS on the fast path: reading and checking them. For gateway.c alone. */
#pragma once

#include "config/gateway.h"

/** "16384-32767". For schema.h's `each`, of a struct gw_config. @return 0, or -EINVAL with a reason in why */
int gw_tls_ports_parse(void *parent, const char *text, const char **why);
int gw_tls_address_parse(void *parent, const char *text, const char **why);

/** Check the tls group against ports, routes and listeners, and fill tls_sources; every error goes to errs. */
void gw_tls_check(struct gw_config *cfg, struct config_errors *errs);

/** The subinterface that holds an address; NULL: not the box's own. @param[out] port  its port; may be NULL */
const struct gw_vlan *gw_address_home(const struct gw_config *cfg, const struct ip_addr *a,
				      const struct gw_port **port);

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* api_ports: `sallyctl port ...`, and what SIGHUP does with gateway.cfg. */
#pragma once

#include "controlplane/agent/agent.h"

/** {name}: read gateway.cfg and take this port over from it. Answered when it is up; on failure all is as it was. */
void api_port_add(struct agent *a, struct api_call *call, json_t *request);
/** {name}: end its bindings, close it, and hold its interface shut. Refused while a listener has its address there. */
void api_port_remove(struct agent *a, struct api_call *call, json_t *request);
void api_port_list(struct agent *a, struct api_call *call, json_t *request);

/** gateway.cfg as it is now. @return NULL, with every error in why; gw_config_free() */
struct gw_config *api_ports_file(struct agent *a, char *why, size_t bytes);

/** Add the ports that gateway.cfg has more, remove those that it has not any more. A broken file changes nothing. */
void api_ports_reload(struct agent *a);

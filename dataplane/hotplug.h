/* SPDX-License-Identifier: GPL-3.0-or-later */
/* hotplug: ports and listeners come and go while workers run. A port's index is a slot: it stays as long as the port does, and the slots
 * of the others do not move. Control thread. */
#pragma once

#include <stdbool.h>

#include "config/base/err.h"
#include "config/base/msg.h"
#include "dataplane/state.h"

/** Do the configurations differ in nothing but ports and listeners, with their upstreams? Headers do not count. */
bool hotplug_suffices(const struct msg_dp_config *a, const struct msg_dp_config *b);

/**
 * Take the listeners of `want`, then close the ports that are not in it any more, or not so, and open those that are new; st->cfg follows. Returns when
 * no worker uses a closed port. A port that is wanted as before but absent is tried once more.
 * @return 0; -EINVAL, and nothing was done; or the -errno of the first port that did not come up, named in err: it is
 *         absent, as it would be after a start, and everything else was done
 */
int hotplug_apply(struct state *st, const struct msg_dp_config *want, struct err *err);

/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config/base/reason.h"

static const struct {
	const char *name, *text;
} reasons[DROP_REASON_COUNT] = {[DROP_NONE] = {"none", "not dropped"},
#define REASON_ROW(sym, name, text) [DROP_##sym] = {name, text},
				DROP_REASONS(REASON_ROW)
#undef REASON_ROW
};

const char *drop_reason_name(unsigned reason)
{
	return reason < DROP_REASON_COUNT ? reasons[reason].name : "invalid";
}

const char *drop_reason_text(unsigned reason)
{
	return reason < DROP_REASON_COUNT ? reasons[reason].text : "invalid";
}

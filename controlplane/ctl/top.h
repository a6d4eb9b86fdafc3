/* SPDX-License-Identifier: GPL-3.0-or-later */
/* top: `sallyctl top`: what the gateway does now, refreshed every second. top.c has the terminal (ncurses, which knows
 * every terminal and its size, and gives it back as it was), top_view.c the text: pure, and the same with --once. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "controlplane/ctl/args.h"

enum top_page { TOP_ALL, TOP_RULES, TOP_PAIRS, TOP_DEVICES, TOP_FLOWS, TOP_REASONS, TOP_PAGES };

struct top_view {
	enum top_page page;
	bool by_packets; /* else by bytes */
	unsigned rows; /* of a list on a page of its own */
};

/** The command. @return exit code */
int top_run(json_t *req, const struct args *a, const char *const *word, FILE *to);

/**
 * Print one page.
 * @param rate   of stats_rate()
 * @param flows  of top_flows(); an array
 */
void top_print(const struct top_view *v, const json_t *rate, const json_t *flows, FILE *to);

/** Flows with what they carried between two answers, a second. @return an array; caller owns */
json_t *top_flows(const json_t *before, const json_t *now);

/** "0", "999", "1.2k", "34.5M", "6.7G" into out. @return out */
const char *top_number(long long n, char out[24]);

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The JSON API: bytes of a client, through a real socket pair, to the server and the controller's command checks. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "config/base/log.h"
#include "controlplane/controller/controller.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct controller c;
static char dir[64];

static int fold(void *arg, const struct decision_entry *e)
{
	return state_fold(arg, e);
}

static void on_receipt(void *arg, const struct receipt *r, uint64_t covers)
{
	(void)arg;
	(void)r;
	(void)covers;
}

static void on_gone(void *arg, const char *gateway)
{
	(void)arg;
	(void)gateway;
}

static void clean_up(void)
{
	char cmd[128];

	api_server_free(c.api);
	feed_free(c.feed);
	journal_close(c.journal);
	state_free(c.state);
	cose_signer_free(c.signer);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	if (system(cmd) != 0)
		fprintf(stderr, "cannot remove %s\n", dir);
}

static void set_up(void)
{
	struct feed_config fc = {.heartbeat_ms = 5000,
				 .lease_ms = 20000,
				 .receipt = on_receipt,
				 .gone = on_gone,
				 .arg = &c};
	char api[96], dec[96];

	log_init("fuzz", LOG_LEVEL_ERROR);
	/* A disk in memory where there is one: each good command is written through. */
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sallyport-fuzz-XXXXXX"
						  : "/tmp/sallyport-fuzz-XXXXXX");
	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(api, sizeof(api), "%s/api.sock", dir);
	snprintf(dec, sizeof(dec), "%s/dec.sock", dir);
	fc.path = dec;
	if (cose_signer_new(&c.signer, NULL) != 0 || state_new(&c.state) != 0 ||
	    journal_open(&c.journal, dir, c.signer, fold, c.state, NULL) != 0)
		abort();
	fc.journal = c.journal;
	fc.state = c.state;
	fc.signer = c.signer;
	if (feed_new(&c.feed, &fc, NULL) != 0 ||
	    api_server_new(&c.api, api, command_handle, &c, NULL) != 0)
		abort();
	atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t before;
	char sink[4096];
	int pair[2];

	if (c.api == NULL)
		set_up();
	if (size > 60000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return 0;
	c.now_boot_ms++;
	c.now_wall_ms = 1750000000000 + c.now_boot_ms;
	before = journal_head(c.journal)->revision;
	if (api_server_adopt(c.api, pair[0], c.now_boot_ms) < 0)
		abort();
	if (write(pair[1], data, size) < 0 || write(pair[1], "\n", 1) < 0)
		abort();
	shutdown(pair[1], SHUT_WR);
	for (unsigned i = 0; i < 64; i++) {
		ssize_t n = read(pair[1], sink, sizeof(sink));

		if (n == 0)
			break; /* all answered, and closed */
		api_server_dispatch(c.api, c.now_boot_ms);
	}
	close(pair[1]);
	api_server_dispatch(c.api, c.now_boot_ms);
	/* Whatever was decided can be read back and verifies. */
	for (uint64_t rev = before + 1; rev <= journal_head(c.journal)->revision; rev++) {
		struct decision_entry *e = NULL;
		uint8_t *cose;
		size_t bytes;

		if (journal_read(c.journal, rev, &cose, &bytes) != 0 ||
		    decision_entry_open(&e, cose, bytes, cose_signer_public(c.signer), NULL) != 0)
			abort();
		decision_entry_free(e);
		free(cose);
	}
	return 0;
}

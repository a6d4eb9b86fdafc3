/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "controlplane/agent/port_slots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SLOTS_FILE "ports"
#define SLOTS_BYTES (MSG_PORTS_MAX * 24)

static struct gw_port *named(struct gw_port *ports, uint32_t n, const char *name)
{
	for (uint32_t i = 0; i < n; i++) {
		if (name[0] != '\0' && strcmp(ports[i].name, name) == 0)
			return &ports[i];
	}
	return NULL;
}

void port_slots_order(struct gw_config *cfg, const char *text)
{
	struct gw_port old[MSG_PORTS_MAX];
	uint32_t n = cfg->n_ports, at = 0;
	unsigned slot;
	char name[16];

	memcpy(old, cfg->ports, sizeof(old));
	memset(cfg->ports, 0, sizeof(cfg->ports));
	cfg->n_ports = 0;
	for (; text != NULL && *text != '\0'; text += strcspn(text, "\n"), text += *text == '\n') {
		struct gw_port *p;

		if (sscanf(text, "%2u %15s", &slot, name) != 2 || slot >= MSG_PORTS_MAX ||
		    cfg->ports[slot].name[0] != '\0')
			continue;
		p = named(old, n, name);
		if (p == NULL)
			continue;
		cfg->ports[slot] = *p;
		p->name[0] = '\0';
		if (slot >= cfg->n_ports)
			cfg->n_ports = slot + 1;
	}
	for (uint32_t i = 0; i < n; i++) {
		if (old[i].name[0] == '\0')
			continue;
		while (cfg->ports[at].name[0] != '\0')
			at++;
		cfg->ports[at] = old[i];
		if (at >= cfg->n_ports)
			cfg->n_ports = at + 1;
	}
}

int port_slots_load(struct gw_config *cfg, struct err *err)
{
	char path[MSG_PATH_BYTES], text[SLOTS_BYTES + 1];
	FILE *f = fopen(gw_run_path(cfg, SLOTS_FILE, path), "re");
	size_t n;

	if (f == NULL && errno == ENOENT)
		return 0;
	if (f == NULL)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	port_slots_order(cfg, text);
	return 0;
}

int port_slots_save(const struct gw_config *cfg, struct err *err)
{
	char path[MSG_PATH_BYTES], new[MSG_PATH_BYTES];
	FILE *f = fopen(gw_run_path(cfg, SLOTS_FILE ".new", new), "we");
	int ret = 0;

	if (f == NULL)
		return err_set(err, -errno, "%s: %s", new, strerror(errno));
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		if (cfg->ports[i].name[0] != '\0')
			fprintf(f, "%u %s\n", i, cfg->ports[i].name);
	}
	if (fclose(f) != 0 || rename(new, gw_run_path(cfg, SLOTS_FILE, path)) < 0)
		ret = -errno;
	return ret < 0 ? err_set(err, ret, "%s: %s", new, strerror(-ret)) : 0;
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "dataplane/port_tap.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <rte_ethdev.h>

#define DRIVER_BYTES RTE_ETHER_MAX_LEN /* of a frame, that the driver takes at its usual MTU */
#define SEGMENTS_MAX 16

int port_tap_mtu(unsigned if_index, uint16_t mtu)
{
	struct ifreq ifr = {.ifr_mtu = mtu};
	int s, ret = 0;

	if (if_indextoname(if_index, ifr.ifr_name) == NULL)
		return -errno;
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	if (ioctl(s, SIOCSIFMTU, &ifr) < 0)
		ret = -errno;
	close(s);
	return ret;
}

/* The driver opens its TAPs with the protocol in front. */
static bool write_frame(int fd, struct rte_mbuf *m)
{
	struct tun_pi pi = {0};
	struct iovec v[SEGMENTS_MAX + 1] = {{.iov_base = &pi, .iov_len = sizeof(pi)}};
	int n = 1;

	if (m->nb_segs > SEGMENTS_MAX)
		return false;
	for (const struct rte_mbuf *s = m; s != NULL; s = s->next)
		v[n++] = (struct iovec){.iov_base = rte_pktmbuf_mtod(s, void *),
					.iov_len = s->data_len};
	if (writev(fd, v, n) < 0)
		return false;
	rte_pktmbuf_free(m);
	return true;
}

uint16_t port_tap_send(uint16_t eth, int fd, uint16_t queue, struct rte_mbuf **pkt, uint16_t n)
{
	uint16_t sent = 0;

	while (sent < n) {
		uint16_t end = sent, did;

		while (end < n && rte_pktmbuf_pkt_len(pkt[end]) <= DRIVER_BYTES)
			end++;
		did = end > sent ? rte_eth_tx_burst(eth, queue, pkt + sent, end - sent) : 0;
		sent += did;
		if (sent < end || sent == n)
			break;
		if (fd < 0 || !write_frame(fd, pkt[sent]))
			break;
		sent++;
	}
	return sent;
}

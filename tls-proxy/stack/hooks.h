/* SPDX-License-Identifier: GPL-3.0-or-later */
/* hooks: where lwIP asks us. Included by lwIP's files, after its own types. */
#pragma once

/* RFC 6528: another sequence number for each connection, that nobody outside can guess, and that grows with the time. */
uint32_t stack_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote,
		   uint16_t remote_port);

/* A segment of this connection comes, of this payload, with so many bytes of options behind its header. Not ERR_OK: it is
 * dropped. Takes its time with the acknowledgement, see stack.c. */
struct tcp_pcb;
struct tcp_hdr;
err_t stack_segment(struct tcp_pcb *pcb, const struct tcp_hdr *hdr, uint16_t option_bytes,
		    const struct pbuf *p);

#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, hdr, optlen, opt1len, opt2, p)                             \
	stack_segment(pcb, hdr, opt1len, p)

#define LWIP_HOOK_TCP_ISN(local, lport, remote, rport) stack_isn(local, lport, remote, rport)

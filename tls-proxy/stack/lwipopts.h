/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lwipopts: what of lwIP is compiled in, and its measures. One thread, raw API, one point-to-point IP interface. */
#pragma once

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 0 /* pcbs.c turns the clock */
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_STATS 1
#define MIB2_STATS 1 /* of these, segments that were sent again */
#define TCP_STATS 0
#define IP_STATS 0
#define IP6_STATS 0
#define ICMP6_STATS 0
#define ND6_STATS 0
#define UDP_STATS 0
#define LINK_STATS 0
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0
#define LWIP_SINGLE_NETIF 1

/* Every object is one allocation of its size: an idle connection holds nothing but its control block. */
#define MEM_CUSTOM_ALLOCATOR 1
#define MEM_CUSTOM_MALLOC stack_mem_alloc
#define MEM_CUSTOM_CALLOC stack_mem_calloc
#define MEM_CUSTOM_FREE stack_mem_free
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 8
#define LWIP_SUPPORT_CUSTOM_PBUF 1 /* port.c: received bytes stay in their mbuf */

/* Frames carry IP and no link protocol: the other end of the port is the dataplane, which knows the way. */
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define PBUF_LINK_HLEN 0
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_ICMP 0
#define LWIP_ICMP6 1 /* ip6.c wants it for extension headers, which stack_input() keeps from it */
#define LWIP_RAW 0
#define LWIP_IGMP 0
#define LWIP_IPV6_MLD 0
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define LWIP_UDP 1
#define LWIP_TCP 1
#define IP_REASSEMBLY 0 /* fragments stay with the kernel */
#define IP_FRAG 0
#define LWIP_IPV6_REASS 0
#define LWIP_IPV6_FRAG 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_NUM_ADDRESSES 1
#define LWIP_ND6_QUEUEING 0
#define LWIP_ND6_ALLOW_RA_UPDATES 0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0
#define LWIP_ND6_NUM_NEIGHBORS 1
#define LWIP_ND6_NUM_DESTINATIONS 1
#define LWIP_ND6_NUM_PREFIXES 1
#define LWIP_ND6_NUM_ROUTERS 1

/* The interface's MTU decides; this is the largest. */
#define TCP_MSS 8960
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 3
#define TCP_WND (256 * 1024) /* unread bytes of a connection at most */
#define TCP_WND_UPDATE_THRESHOLD (TCP_WND / 4) /* news of it without an acknowledgement */
#define TCP_SND_BUF (128 * 1024) /* bytes taken and not acknowledged at most */
#define TCP_SND_QUEUELEN 512 /* of small segments: see send_room() */
#define TCP_SNDLOWAT (2 * TCP_MSS + 1)
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES TCP_WND
#define TCP_OOSEQ_MAX_PBUFS 256
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 3
/* Twelve bytes in each segment and eight in each control block would buy a round-trip time in ticks, which the unmarked
 * segments give as well, and protection against wrapped sequence numbers (RFC 7323), which takes a connection at more
 * than 400 MB/s for a segment that is ten seconds late. */
#define LWIP_TCP_TIMESTAMPS 0
#define TCP_LISTEN_BACKLOG 0 /* counts to 255 only: stream.c counts half-open connections itself */
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1 /* tells when lwIP frees a control block, whatever the reason */
#define SO_REUSE 0

#define TCP_TMR_INTERVAL                                                                           \
	50 /* ms: delayed acknowledgements, but see pcbs.c; twice that: the tick of retransmissions */
#define LWIP_TCP_RTO_TIME 1000 /* RFC 6298, 2.1 */
#define TCP_MSL 15000 /* LAST-ACK for twice as long; TIME-WAIT is shorter, see pcbs.c */

#define LWIP_CHKSUM stack_checksum
#define LWIP_CHKSUM_ALGORITHM 0
/* What is sent is read once for both. */
#define LWIP_CHECKSUM_ON_COPY 1
#define LWIP_CHKSUM_COPY stack_checksum_copy
#define LWIP_HOOK_FILENAME "tls-proxy/stack/hooks.h"

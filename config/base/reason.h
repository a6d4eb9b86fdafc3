/* SPDX-License-Identifier: GPL-3.0-or-later */
/* reason: why a packet died in the dataplane. One list for counters, metrics, `sallyctl` and the docs:
 * X(symbol, metric name, what it means to an engineer). Order is the wire order of struct msg_stats: append only. */
#pragma once

#define DROP_REASONS(X)                                                                            \
	X(TRUNCATED, "truncated", "a header or length reaches past the end of the packet")         \
	X(MALFORMED, "malformed", "impossible header values (version, length, addresses)")         \
	X(UNKNOWN_VLAN, "unknown_vlan", "VLAN tag not configured on the port")                     \
	X(NOT_FOR_US, "not_for_us", "unicast frame to another MAC address")                        \
	X(SPOOFED, "spoofed", "source IP is bound to another MAC, VLAN or port")                   \
	X(STRANGER, "stranger", "source has no binding: only listeners can be reached")            \
	X(NO_POLICY, "no_policy", "no policy in force yet")                                        \
	X(NO_TRUST, "no_trust", "the device's trust record passes nothing")                        \
	X(EXPIRED, "expired", "the device's standing has expired")                                 \
	X(REVOKED, "revoked", "the device is revoked")                                             \
	X(NO_SEGMENT, "no_segment", "destination is neither a bound device nor in a network")      \
	X(DENIED, "denied", "no rule allows it, or a rule denies it")                              \
	X(BAD_STATE, "bad_state",                                                                  \
	  "no flow, and the packet cannot open one (TCP state, ICMP reply)")                       \
	X(REFUSED_CACHED, "refused_cached", "same flow was refused a moment ago")                  \
	X(FLOW_TABLE_FULL, "flow_table_full", "no room for a new flow")                            \
	X(NO_ROUTE, "no_route", "no route to the destination")                                     \
	X(NO_PORT, "no_port", "the output port is absent or has been removed")                     \
	X(REVERSE_PATH, "reverse_path",                                                            \
	  "source address is not routed back to the port it came from")                            \
	X(TX_FULL, "tx_full", "the output port takes no more")                                     \
	X(KERNEL_FULL, "kernel_full", "the kernel port takes no more")                             \
	X(NOT_READY, "not_ready", "no full state from the agent yet")                              \
	X(RATE_RULE, "rate_rule", "the rule's rate in the policy is used up")                      \
	X(RATE_DEVICE, "rate_device", "the device sends more than its segment's rate")             \
	X(FLOW_CAP, "flow_cap", "the device (or the networks) has as many open flows as it may")   \
	X(NEW_FLOW_RATE, "new_flow_rate", "the device tries to open flows faster than it may")     \
	X(STRANGER_RATE, "stranger_rate",                                                          \
	  "more from sources without a binding than limits.strangers lets pass")                   \
	X(KERNEL_RATE, "kernel_rate",                                                              \
	  "the device sends more to the box itself than limits.device lets pass")                  \
	X(TLS_DOWN, "tls_down", "no TLS worker runs that could take the packet")                   \
	X(TLS_UNFIT, "tls_unfit",                                                                  \
	  "a fragment, IP options or a TTL at its end, to or from a TLS worker's own stack")       \
	X(TLS_SOURCE, "tls_source",                                                                \
	  "a TLS worker sent from an address or port, or to one, that is not its own")             \
	X(TLS_TOO_BIG, "tls_too_big",                                                              \
	  "a TLS worker's packet is larger than the way out takes; it is told")                    \
	X(NO_NEIGHBOUR, "no_neighbour",                                                            \
	  "the MAC address of a TLS worker's peer, or of the gateway to it, is not known")

enum drop_reason {
	DROP_NONE,
#define REASON_ENUM(sym, name, text) DROP_##sym,
	DROP_REASONS(REASON_ENUM)
#undef REASON_ENUM
		DROP_REASON_COUNT
};

const char *
drop_reason_name(unsigned reason); /* metric name; "none" for 0, "invalid" out of range */
const char *drop_reason_text(unsigned reason); /* the sentence above */

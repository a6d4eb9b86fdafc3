# Sallyport: zero-trust edge gateway.  `make help` lists the targets.
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A process's privilege is readable in its link line: which objects, which libraries.

B ?= build
PREFIX ?= /usr/local
CC := gcc
ifneq ($(SAN),)
CC := clang
endif
D := $(abspath build/deps)# dependencies' sources and builds, shared by all build folders
WOLFSSL := $(D)/wolfssl/lib/libwolfssl.a
MAKEFLAGS += --no-builtin-rules
NPROC := $(shell nproc)
Q := $(if $(V),,@)# make V=1 shows the commands

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
HARDEN := -fstack-protector-strong -fPIE -fno-plt
ifeq ($(SAN),)
HARDEN += -D_FORTIFY_SOURCE=2 -fstack-clash-protection -fcf-protection
else
CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif
ifneq ($(filter aarch64,$(shell uname -m)),)
HARDEN := $(filter-out -fcf-protection,$(HARDEN)) -mbranch-protection=standard
endif
VERSION := 0.1.0
# Expanded when a recipe runs: on a bare machine pkg-config and DPDK come with the first target.
CPPFLAGS = -I. -isystem $(D)/wolfssl/include -D_GNU_SOURCE -DSALLYPORT_VERSION='"$(VERSION)"'
LDFLAGS := -pie -Wl,-z,relro,-z,now -Wl,--as-needed
ifneq ($(SAN),)
CPPFLAGS += -DSALLYPORT_SANITIZED
endif
comma := ,
pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)

# Includes of DPDK and wolfSSL are system includes: warnings in dependencies do not count.
DPDK_CFLAGS = $(patsubst -I%,-isystem %,$(filter-out -march=%,$(call pkg,--cflags,libdpdk))) \
	$(filter -march=%,$(call pkg,--cflags,libdpdk))

PROGRAMS := sallyport-dataplane sallyport-tls-proxy sallyport-agent sallyport-controller sallyctl
UNITS := $(patsubst test/unit/%.c,%,$(sort $(wildcard test/unit/*/*_test.c test/unit/*/*/*_test.c)))
FUZZ := $(patsubst test/fuzz/%.c,%,$(sort $(wildcard test/fuzz/*_fuzz.c)))
TOOLS := $(patsubst test/tools/%.c,%,$(sort $(wildcard test/tools/*.c)))
BENCHES := $(patsubst bench/%.c,%,$(sort $(wildcard bench/*.c)))

all: $(PROGRAMS:%=$(B)/%)

# ---- what each process is made of -------------------------------------------------------------
src = $(foreach d,$(1),$(filter-out $(d)/main.c,$(sort $(wildcard $(d)/*.c))))
objs = $(patsubst %.c,$(B)/o/%.o,$(call src,$(1)))
main = $(B)/o/$(1)/main.o

BASE := $(call objs,config/base)
CONFIG := $(call objs,config)
DATAPLANE := $(call objs,dataplane)
# lwIP has no build of its own for this: its files are compiled with our lwipopts.h, as one, whose small functions then
# stand where they are called: 9 % of a segment's time.
LWIP := $(D)/src/lwip/src
LWIP_CFLAGS := -isystem $(LWIP)/include -Itls-proxy/stack
LWIP_FILES := init def inet_chksum ip mem memp netif pbuf stats tcp tcp_in tcp_out timeouts udp ipv4/ip4 ipv4/ip4_addr \
	ipv6/ip6 ipv6/ip6_addr ipv6/icmp6 ipv6/inet6 ipv6/nd6
LWIP_OBJS := $(B)/o/lwip.o
TLS := $(call objs,tls-proxy tls-proxy/stack) $(LWIP_OBJS)
DECISION := $(call objs,controlplane)
AGENT := $(call objs,controlplane/agent)
CONTROLLER := $(call objs,controlplane/controller)
CTL := $(call objs,controlplane/ctl)

$(B)/sallyport-dataplane: LIBS = $(call pkg,--libs,libdpdk) -lrte_net_vhost
$(B)/sallyport-dataplane: $(call main,dataplane) $(DATAPLANE) $(BASE)

# What the library asks nobody for: ML-DSA's own signatures (tls-proxy/key.h), known ones (tls-proxy/signatures.h), hashes
# that nobody reads (tls-proxy/transcript.h).
TLS_WRAP := $(patsubst %,-Wl$(comma)--wrap=%,wc_MlDsaKey_SignCtx wc_ecc_verify_hash wc_ed25519_verify_msg wc_MlDsaKey_VerifyCtx \
	wc_InitSha384_ex wc_Sha384Update wc_Sha384GetHash wc_InitSha512_ex wc_Sha512Update wc_Sha512GetHash)
TLS_LIBS = $(TLS_WRAP) $(WOLFSSL) -lm $(call pkg,--libs,libdpdk libconfig libseccomp libcap)
$(B)/sallyport-tls-proxy: LIBS = $(TLS_LIBS)
$(B)/sallyport-tls-proxy: $(call main,tls-proxy) $(TLS) $(CONFIG) $(BASE)

$(B)/sallyport-agent: LIBS = $(WOLFSSL) -lm $(call pkg,--libs,libnftnl libmnl libconfig sqlite3 libcbor jansson libmicrohttpd libcap libseccomp)
$(B)/sallyport-agent: $(call main,controlplane/agent) $(AGENT) $(DECISION) $(CONFIG) $(BASE)

$(B)/sallyport-controller: LIBS = $(WOLFSSL) -lm $(call pkg,--libs,libconfig sqlite3 libcbor jansson libcap libseccomp)
$(B)/sallyport-controller: $(call main,controlplane/controller) $(CONTROLLER) $(DECISION) $(CONFIG) $(BASE)

$(B)/sallyctl: LIBS = $(call pkg,--libs,jansson libconfig ncursesw)
$(B)/sallyctl: $(call main,controlplane/ctl) $(CTL) $(CONFIG) $(BASE)

$(B)/o/dataplane/%.o $(B)/o/test/unit/dataplane/%.o $(B)/o/test/unit/property/%.o $(B)/o/test/fuzz/dataplane%.o $(B)/o/bench/%.o: CPPFLAGS += $(DPDK_CFLAGS)
# The packet path, where the compiler's work is worth its time: 7 % of a packet's cycles.
ifeq ($(SAN),)
$(B)/o/dataplane/%.o: CFLAGS += -O3
endif
# What a segment costs is lwIP, its buckets and the copying.
ifeq ($(SAN),)
$(LWIP_OBJS) $(B)/o/tls-proxy/stack/%.o: CFLAGS += -O3
endif
$(B)/o/tls-proxy/stack/%.o $(B)/o/test/unit/tls-proxy/stack%.o $(B)/o/test/fuzz/tls_stack%.o $(B)/o/bench/segment%.o $(B)/o/bench/tls_load.o: CPPFLAGS += $(LWIP_CFLAGS) $(DPDK_CFLAGS)
$(LWIP_OBJS): $(D)/.sources Makefile tls-proxy/stack/lwipopts.h tls-proxy/stack/hooks.h tls-proxy/stack/arch/cc.h
	@mkdir -p $(@D)
	$(if $(V),,@echo "  cc    lwip")
	$(Q)printf '#include "core/%s.c"\n' $(LWIP_FILES) | \
		$(CC) -I. -I$(LWIP) $(LWIP_CFLAGS) $(CFLAGS) -std=gnu11 -w $(HARDEN) -fno-strict-aliasing -c -o $@ -x c -

# The files that look into the library, behind the installed headers.
$(B)/o/tls-proxy/session_dtls.o $(B)/o/tls-proxy/session_fetch.o $(B)/o/tls-proxy/session_record.o $(B)/o/tls-proxy/transcript.o \
	$(B)/o/test/unit/tls-proxy/session_record_test.o $(B)/o/test/unit/tls-proxy/transcript_test.o \
	$(B)/o/test/fuzz/tls_record_fuzz.o: CPPFLAGS += -isystem $(D)/src/wolfssl
# wolfSSL's headers, whose structures depend on its flags, are system headers, which -MMD leaves out.
$(B)/o/%.o: %.c $(WOLFSSL) | $(D)/.packages
	@mkdir -p $(@D)
	$(if $(V),,@echo "  cc    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -std=gnu11 $(WARN) $(HARDEN) -MMD -MP -c -o $@ $<

$(PROGRAMS:%=$(B)/%):
	@mkdir -p $(@D)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS)

# ---- dependencies -----------------------------------------------------------------------------
deps: $(D)/.packages $(WOLFSSL) ## install Debian packages, fetch and build wolfSSL and lwIP

$(D)/.packages: config/deps/packages config/deps/install.sh
	config/deps/install.sh
	@mkdir -p $(@D) && touch $@

$(D)/.sources: config/deps/source.sh | $(D)/.packages
	config/deps/source.sh $(D)/src
	@touch $@

$(WOLFSSL): config/deps/wolfssl.sh $(D)/.sources
	config/deps/wolfssl.sh $(D)/src/wolfssl $(D)/wolfssl
	@touch $@

# ---- tests ------------------------------------------------------------------------------------
# A unit test links the objects of the processes it looks into; its folder under test/unit says which.
UNIT_LIBS = $(call pkg,--libs,cmocka)
$(B)/unit/config/%: PARTS = $(CONFIG) $(BASE)
$(B)/unit/config/%: LIBS = $(call pkg,--libs,libconfig)
$(B)/unit/dataplane/%: PARTS = $(DATAPLANE) $(CONFIG) $(BASE)
$(B)/unit/dataplane/%: LIBS = $(call pkg,--libs,libdpdk libconfig) -lrte_net_ring -lrte_net_vhost
$(B)/unit/tls-proxy/%: PARTS = $(TLS) $(CONFIG) $(BASE)
$(B)/unit/tls-proxy/%: LIBS = $(TLS_LIBS)
# A whole worker over its own stack, without DPDK's port.
$(patsubst %,$(B)/unit/tls-proxy/%_test,conn conn_close drain upstream upstream_tls): PARTS = $(filter-out %/port.o,$(TLS)) $(CONFIG) $(BASE) \
	$(B)/o/test/unit/tls-proxy/stack_loop.o
$(B)/unit/controlplane/%: PARTS = $(AGENT) $(CONTROLLER) $(CTL) $(DECISION) $(CONFIG) $(BASE)
$(B)/unit/controlplane/%: LIBS = $(WOLFSSL) -lm $(call pkg,--libs,libnftnl libmnl libconfig sqlite3 libcbor jansson libmicrohttpd libcap libseccomp ncursesw)
# Both planes in one process, against a reference.
$(B)/unit/property/%: PARTS = $(DATAPLANE) $(filter $(B)/o/controlplane/agent/n%,$(AGENT)) $(CONFIG) $(BASE)
$(B)/unit/property/%: LIBS = $(call pkg,--libs,libdpdk libnftnl libmnl libconfig) -lrte_net_vhost
.SECONDEXPANSION:
$(UNITS:%=$(B)/unit/%): $(B)/unit/%: $(B)/o/test/unit/%.o $$(PARTS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS) $(UNIT_LIBS)

units: $(UNITS:%=$(B)/unit/%)

$(TOOLS:%=$(B)/tools/%): $(B)/tools/%: $(B)/o/test/tools/%.o $(DECISION) $(CONFIG) $(BASE)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(WOLFSSL) -lm $(call pkg,--libs,libcbor jansson libconfig sqlite3 libcap libseccomp)

tools: $(TOOLS:%=$(B)/tools/%)

test: ## build, then unit tests and every scenario; needs root and no lab
	@$(MAKE) --no-print-directory -j$(NPROC) all units tools bench
	@B=$(B) test/run

unit: ## unit tests alone
	@$(MAKE) --no-print-directory -j$(NPROC) all units tools
	@B=$(B) test/run unit

asan: ## all tests under address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory test B=build-asan SAN=1

# Fuzz targets: clang's libFuzzer; objects of their own folder. `make fuzz FUZZ_S=60`
FUZZ_S ?= 10
fuzz: ## run every fuzz target for FUZZ_S seconds
	@$(MAKE) --no-print-directory -j$(NPROC) fuzzers B=build-fuzz SAN=1 \
		CC=clang CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined'
	@B=build-fuzz FUZZ_S=$(FUZZ_S) test/fuzz/run $(FUZZ)

$(B)/fuzz/config%: PARTS = $(CONFIG) $(BASE)
$(B)/fuzz/config%: LIBS = $(call pkg,--libs,libconfig)
$(B)/fuzz/dataplane%: PARTS = $(DATAPLANE) $(CONFIG) $(BASE)
$(B)/fuzz/dataplane%: LIBS = $(call pkg,--libs,libdpdk libconfig) -lrte_net_vhost
$(B)/fuzz/tls%: PARTS = $(TLS) $(CONFIG) $(BASE)
$(B)/fuzz/tls%: LIBS = $(TLS_LIBS)
$(B)/fuzz/controlplane%: PARTS = $(AGENT) $(CONTROLLER) $(DECISION) $(CONFIG) $(BASE)
$(B)/fuzz/controlplane%: LIBS = $(WOLFSSL) -lm $(call pkg,--libs,libnftnl libmnl libconfig sqlite3 libcbor jansson libmicrohttpd libcap libseccomp cmocka)
$(FUZZ:%=$(B)/fuzz/%): $(B)/fuzz/%: $(B)/o/test/fuzz/%.o $$(PARTS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS)

fuzzers: $(FUZZ:%=$(B)/fuzz/%)

# ---- benchmarks -------------------------------------------------------------------------------
$(B)/bench/%: PARTS = $(BASE)
$(B)/bench/feed: PARTS = $(CONFIG) $(BASE)
$(B)/bench/feed: LIBS = $(call pkg,--libs,libconfig)
$(B)/bench/path $(B)/bench/last_packet: PARTS = $(DATAPLANE) $(CONFIG) $(BASE)
$(B)/bench/path $(B)/bench/last_packet: LIBS = $(call pkg,--libs,libdpdk libconfig) -lrte_net_vhost
$(B)/bench/segment_cost: PARTS = $(filter-out %/port.o,$(call objs,tls-proxy/stack)) $(LWIP_OBJS) $(BASE)
$(B)/bench/gen: LIBS = $(call pkg,--libs,libdpdk)
$(B)/bench/session_cost: PARTS = $(TLS) $(CONFIG) $(BASE)
$(B)/bench/session_cost: LIBS = $(TLS_LIBS)
$(B)/bench/tls_load: PARTS = $(TLS) $(CONFIG) $(BASE)
$(B)/bench/tls_load: LIBS = $(TLS_LIBS)
$(B)/bench/tls_floor: LIBS = $(WOLFSSL) -lm
$(BENCHES:%=$(B)/bench/%): $(B)/bench/%: $(B)/o/bench/%.o $$(PARTS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  link  $@")
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS)

bench: $(BENCHES:%=$(B)/bench/%)

bench-packet-rate: bench ## what the packet path costs, against plain forwarding; BENCH='--quick --json'
	@B=$(B) bench/run packet-rate $(BENCH)

bench-revocation: all bench ## how fast a revocation is in force; needs root
	@B=$(B) bench/run revocation $(BENCH)

bench-tls: all bench ## mTLS sessions beside nginx and HAProxy: processor time, memory, revocation; needs root
	@B=$(B) bench/run tls $(BENCH)

# ---- lab --------------------------------------------------------------------------------------
lab: ## build everything, bring up the lab in network namespaces, take the guided tour
	@$(MAKE) --no-print-directory -j$(NPROC) all tools
	@B=$(B) test/netns/lab up tour

lab-down: ## remove every trace of the lab
	@B=$(B) test/netns/lab down

# ---- housekeeping -----------------------------------------------------------------------------
SOURCES = $(shell git ls-files -co --exclude-standard '*.c' '*.h')
SCRIPTS = test/netns/lib.sh $(shell git ls-files -co --exclude-standard | xargs grep -lE '^\#!/(usr/bin/env ba|bin/ba|bin/)sh' 2>/dev/null)
lint: $(D)/.packages ## format (clang-format 14) and shellcheck
	@clang-format-14 --dry-run -Werror $(SOURCES)
	@shellcheck -x $(SCRIPTS)
	@echo "lint: $(words $(SOURCES)) sources, $(words $(SCRIPTS)) scripts"

format: ## format all sources in place
	@clang-format-14 -i $(SOURCES)

# One entry a source file, from the same variables as the compile rule.
compile_commands.json: Makefile ## for clangd and clang-tidy
	@{ printf '['; sep=''; for f in $(wildcard config/*.c config/base/*.c dataplane/*.c tls-proxy/*.c controlplane/*.c controlplane/*/*.c test/*/*.c test/unit/*/*.c bench/*.c); do \
		printf '%s\n{"directory":"%s","file":"%s","command":"%s"}' "$$sep" "$(CURDIR)" "$$f" \
		'$(CC) $(filter-out -DSALLYPORT_VERSION=%,$(CPPFLAGS)) -DSALLYPORT_VERSION=\\\"$(VERSION)\\\" $(DPDK_CFLAGS) $(CFLAGS) -std=gnu11 -c '"$$f"; sep=','; done; printf '\n]\n'; } > $@

install: all ## install into DESTDIR with PREFIX
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/sallyport \
		$(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(filter-out $(B)/sallyctl,$(PROGRAMS:%=$(B)/%)) $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(B)/sallyctl $(DESTDIR)$(PREFIX)/bin
	for f in gateway.cfg segments.cfg; do \
		[ -e $(DESTDIR)/etc/sallyport/$$f ] || install -m 644 config/$$f $(DESTDIR)/etc/sallyport; done
	for u in config/systemd/*; do sed 's|@PREFIX@|$(PREFIX)|g' $$u \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/$${u##*/}; done

clean: ## remove what was built; the dependencies stay (rm -r build for those)
	rm -rf build-asan build-fuzz compile_commands.json
	find build -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} + 2>/dev/null || true

help: ## this text
	@sed -n 's/^\([a-z][a-z_.-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  %-22s %s\n", $$1, $$2}'

.PHONY: all deps units tools bench bench-packet-rate bench-revocation bench-tls test unit asan fuzz fuzzers lab lab-down lint format install clean help
-include $(shell find $(B)/o -name '*.d' 2>/dev/null)

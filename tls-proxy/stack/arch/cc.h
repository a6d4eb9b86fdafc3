/* SPDX-License-Identifier: GPL-3.0-or-later */
/* cc: what lwIP asks of compiler and platform. Included by every file of lwIP. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of the system's <netinet/in.h> and <errno.h>, not a second set of lwIP's. */
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS
#define LWIP_ERRNO_STDINCLUDE 1
#define LWIP_TIMEVAL_PRIVATE 0
#define LWIP_NO_CTYPE_H 0

#define lwip_htons(x) __builtin_bswap16(x)
#define lwip_htonl(x) __builtin_bswap32(x)
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lwip_htons() and lwip_htonl() are those of a little-endian machine"
#endif

/* memory.c */
void *stack_mem_alloc(size_t bytes);
void *stack_mem_calloc(size_t n, size_t bytes);
void stack_mem_free(void *mem);
uint16_t stack_checksum(const void *data, int bytes);
uint16_t stack_checksum_copy(void *to, const void *data, int bytes); /* and copy them */
/* A state that must not be: better no worker than a wrong one. Ends the process. */
void stack_assert(const char *what) __attribute__((noreturn, cold));

#define LWIP_PLATFORM_DIAG(x)                                                                      \
	do {                                                                                       \
	} while (0)
#define LWIP_PLATFORM_ASSERT(what) stack_assert(what)

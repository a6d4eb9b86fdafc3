/* SPDX-License-Identifier: GPL-3.0-or-later */
/* memory: what lwIP takes from the heap, counted and bounded; and its checksum. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "config/base/log.h"
#include "tls-proxy/stack/memory.h"
#include "tls-proxy/stack/arch/cc.h"

#define BLOCK_BYTES STACK_BLOCK_BYTES
#define BLOCKS_MAX ((size_t)1 << 20) /* then they come from the heap */
#ifdef SALLYPORT_SANITIZED
#define BLOCKS 0 /* the sanitizer looks after the heap alone */
#else
#define BLOCKS 1
#endif

static size_t used_bytes, limit_bytes = SIZE_MAX;

size_t stack_mem_used(void)
{
	return used_bytes;
}

bool stack_mem_scarce(void)
{
	return used_bytes > limit_bytes - limit_bytes / 8;
}

void stack_mem_limit(size_t bytes)
{
	limit_bytes = bytes;
}

/* ---- control blocks ---------------------------------------------------------------------------
 * The one object that each connection has, and that each segment reads and writes: whole cache lines, side by side on
 * large pages. What was given back is used first; the rest of the region is not there until it is wanted. */

static struct {
	char *base;
	void *free; /* a list: the first word of a free one is the next */
	uint32_t n; /* have been handed out at some time */
} blocks;

static void *block_alloc(void)
{
	void *mem = blocks.free;

	if (mem != NULL) {
		memcpy(&blocks.free, mem, sizeof(void *));
		return mem;
	}
	if (blocks.base == NULL) {
		blocks.base = mmap(NULL, BLOCKS_MAX * BLOCK_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (blocks.base == MAP_FAILED)
			blocks.n = BLOCKS_MAX;
		else
			madvise(blocks.base, BLOCKS_MAX * BLOCK_BYTES, MADV_HUGEPAGE);
	}
	return blocks.n < BLOCKS_MAX ? blocks.base + BLOCK_BYTES * blocks.n++ : NULL;
}

static bool block_is(const void *mem)
{
	return blocks.base != NULL && (const char *)mem >= blocks.base &&
	       (const char *)mem < blocks.base + BLOCKS_MAX * BLOCK_BYTES;
}

static void block_free(void *mem)
{
	memcpy(mem, &blocks.free, sizeof(void *));
	blocks.free = mem;
}

void *stack_mem_alloc(size_t bytes)
{
	void *mem;

	if (used_bytes >= limit_bytes)
		return NULL;
	if (BLOCKS && bytes > BLOCK_BYTES - 64 && bytes <= BLOCK_BYTES) {
		mem = block_alloc();
		if (mem != NULL) {
			used_bytes += BLOCK_BYTES;
			return mem;
		}
	}
	mem = malloc(bytes);
	if (mem != NULL)
		used_bytes += malloc_usable_size(mem);
	return mem;
}

void *stack_mem_calloc(size_t n, size_t bytes)
{
	void *mem;

	if (used_bytes >= limit_bytes)
		return NULL;
	mem = calloc(n, bytes);
	if (mem != NULL)
		used_bytes += malloc_usable_size(mem);
	return mem;
}

void stack_mem_free(void *mem)
{
	if (block_is(mem)) {
		used_bytes -= BLOCK_BYTES;
		block_free(mem);
		return;
	}
	used_bytes -= malloc_usable_size(mem); /* 0 of NULL */
	free(mem);
}

/* RFC 1071: the sum of 16-bit words in any order; here of 32-bit words, four sums side by side for the vector unit. */
uint16_t stack_checksum(const void *data, int bytes)
{
	const uint8_t *at = data;
	uint64_t sum = 0, part[4] = {0};
	uint32_t word[4];

	for (; bytes >= 16; bytes -= 16, at += 16) {
		memcpy(word, at, 16);
		for (int i = 0; i < 4; i++)
			part[i] += word[i];
	}
	sum = part[0] + part[1] + part[2] + part[3];
	for (; bytes >= 4; bytes -= 4, at += 4) {
		memcpy(word, at, 4);
		sum += word[0];
	}
	word[0] = 0;
	if (bytes > 0)
		memcpy(word, at, bytes); /* zeroes follow, as the padding of an odd byte wants it */
	sum += word[0];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

void stack_assert(const char *what)
{
	log_error("the TCP stack is in a state that must not be: %s", what);
	abort();
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* memory: what lwIP takes from the heap, counted and bounded; and its checksum. */
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

bool stack_mem_spent(void)
{
	return used_bytes > limit_bytes - limit_bytes / 16;
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

/* ---- the rest -----------------------------------------------------------------------------------
 * Segments come and go with each message, and the heap takes its time over pieces of more than a kilobyte. Of each size
 * that is usual some are kept: what was given back last is in the cache. */

struct head {
	uint32_t bytes; /* with this */
	uint32_t shelf; /* SHELVES: none */
	struct head *next; /* of a free one, in its place */
};

#define HEAD_BYTES 16 /* without next: what follows is aligned as the heap's own */
#define SHELVES 3

_Static_assert(offsetof(struct head, next) <= HEAD_BYTES, "it is in front");

static struct {
	const uint32_t bytes, max;
	uint32_t n;
	struct head *free;
} shelves[SHELVES] = {
	{128, 4096, 0, NULL}, /* what lwIP notes of a segment */
	{448, 4096, 0, NULL}, /* a message */
	{1664, 1024, 0, NULL}, /* a whole segment of Ethernet's */
};

static uint32_t shelf_for(size_t bytes)
{
	uint32_t i = 0;

	while (i < SHELVES && bytes > shelves[i].bytes)
		i++;
	return BLOCKS ? i : SHELVES;
}

static void *piece_alloc(size_t bytes)
{
	uint32_t shelf = shelf_for(bytes + HEAD_BYTES);
	struct head *h;

	if (bytes > UINT32_MAX - HEAD_BYTES)
		return NULL;
	if (shelf < SHELVES && shelves[shelf].free != NULL) {
		h = shelves[shelf].free;
		shelves[shelf].free = h->next;
		shelves[shelf].n--;
	} else {
		bytes = shelf < SHELVES ? shelves[shelf].bytes : bytes + HEAD_BYTES;
		h = malloc(bytes);
		if (h == NULL)
			return NULL;
		h->bytes = (uint32_t)bytes;
		h->shelf = shelf;
	}
	used_bytes += h->bytes;
	return (char *)h + HEAD_BYTES;
}

static void piece_free(void *mem)
{
	struct head *h = (struct head *)((char *)mem - HEAD_BYTES);

	used_bytes -= h->bytes;
	if (h->shelf == SHELVES || shelves[h->shelf].n == shelves[h->shelf].max) {
		free(h);
		return;
	}
	h->next = shelves[h->shelf].free;
	shelves[h->shelf].free = h;
	shelves[h->shelf].n++;
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
	return piece_alloc(bytes);
}

void *stack_mem_calloc(size_t n, size_t bytes)
{
	void *mem = n == 0 || bytes <= SIZE_MAX / n ? stack_mem_alloc(n * bytes) : NULL;

	if (mem != NULL)
		memset(mem, 0, n * bytes);
	return mem;
}

void stack_mem_free(void *mem)
{
	if (mem == NULL)
		return;
	if (block_is(mem)) {
		used_bytes -= BLOCK_BYTES;
		block_free(mem);
		return;
	}
	piece_free(mem);
}

/* ---- checksum ----------------------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(SALLYPORT_SANITIZED)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

typedef uint64_t words __attribute__((vector_size(32)));

/* RFC 1071: the sum of 16-bit words in any order; here of 32-bit words, eight sums side by side for the vector unit. */
static inline __attribute__((always_inline)) uint64_t sum_wide(uint8_t *to, const uint8_t *at,
							       size_t bytes)
{
	words word, low = {0}, high = {0};

	for (; bytes >= sizeof(word); bytes -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		low += word & 0xffffffff;
		high += word >> 32;
		if (to != NULL) {
			memcpy(to, &word, sizeof(word));
			to += sizeof(word);
		}
	}
	low += high;
	return low[0] + low[1] + low[2] + low[3];
}

/* Less than 32 bytes: headers, and what is left. By pieces of fixed sizes, for whoever copies such a rest as a whole and
 * reads it again as a word waits for his own writing. */
static inline __attribute__((always_inline)) uint64_t sum_rest(uint8_t *to, const uint8_t *at,
							       size_t bytes)
{
	uint64_t sum = 0, eight;
	uint32_t four;
	uint16_t two;

	for (; bytes >= 8; bytes -= 8, at += 8) {
		memcpy(&eight, at, 8);
		sum += (eight & 0xffffffff) + (eight >> 32);
		if (to != NULL) {
			memcpy(to, &eight, 8);
			to += 8;
		}
	}
	if (bytes & 4) {
		memcpy(&four, at, 4);
		sum += four;
		if (to != NULL)
			memcpy(to, &four, 4);
	}
	at += bytes & 4;
	if (to != NULL)
		to += bytes & 4;
	if (bytes & 2) {
		memcpy(&two, at, 2);
		sum += two;
		if (to != NULL)
			memcpy(to, &two, 2);
	}
	if (bytes & 1) { /* a zero follows, as the padding of an odd byte wants it */
		sum += at[bytes & 2];
		if (to != NULL)
			to[bytes & 2] = at[bytes & 2];
	}
	return sum;
}

static inline __attribute__((always_inline)) uint16_t sum_of(uint8_t *to, const uint8_t *at,
							     size_t bytes)
{
	size_t wide = bytes & ~(sizeof(words) - 1);
	uint64_t sum = wide > 0 ? sum_wide(to, at, wide) : 0;

	if (bytes == 0) /* then there may be no data at all */
		return 0;
	sum += sum_rest(to != NULL ? to + wide : NULL, at + wide, bytes - wide);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

WIDE uint16_t stack_checksum(const void *data, int bytes)
{
	return sum_of(NULL, data, bytes);
}

WIDE uint16_t stack_checksum_copy(void *to, const void *data, int bytes)
{
	return sum_of(to, data, bytes);
}

void stack_assert(const char *what)
{
	log_error("the TCP stack is in a state that must not be: %s", what);
	abort();
}

/* SPDX-License-Identifier: GPL-3.0-or-later */
/* hello: a look at what a TLS client says first (RFC 8446 section 4.1.2), before anything is made for it: is the
 * ClientHello whole, and which name does it ask for (RFC 6066 section 3)? Pure. It only chooses the certificate: whether
 * the message is good decides the TLS library, which reads the same bytes again. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HELLO_NAME_BYTES 256

enum hello {
	HELLO_MORE, /* more bytes are needed */
	HELLO_WHOLE, /* name is set; "": it asks for none */
	HELLO_STRANGE, /* no ClientHello: the library will say what is wrong */
};

/** @param[out] name  lower case, printable ASCII, ends with a NUL; "" unless HELLO_WHOLE
 * @param[out] ticket_bytes  of a ticket of TLS 1.2 (RFC 5077 section 3.2); 0: none, or not HELLO_WHOLE */
enum hello hello_read(const uint8_t *in, size_t bytes, char name[static HELLO_NAME_BYTES],
		      size_t *ticket_bytes);

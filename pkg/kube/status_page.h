/* The status page, status_page.html, as it is served at /. One file without external resources. */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include <stddef.h>

extern const char status_page[];
extern const size_t status_page_len;

#endif

#include "status_page.h"

const char status_page[] = {
#include "status_page.inc" /* made from status_page.html by rules.mk */
};
const size_t status_page_len = sizeof(status_page);

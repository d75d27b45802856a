/* What matrices in bit planes are; docs/design/stack-format.md says what the bytes mean. */

#include <stdint.h>
#include <string.h>

enum { PLANES = 7, GROUP = 16, WORD = 32 };

static float scale_of_bits(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* U of a code, which has a bit for each plane that is loaded, the first one highest. */
static int moved(int code, int level) { return (2 * code + 1 - (1 << level)) << (PLANES - level); }

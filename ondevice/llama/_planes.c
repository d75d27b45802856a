/* The arithmetic of residual stacks: matrices in bit planes, multiplied as they lie.

   docs/stack-format.md says what the bytes mean. In short: a weight is scale * nibble * v(U), where
   each plane p that is loaded moves U by 32 >> p, up where its bit is 1 and down where it is 0, and
   v(U) = U * (12288 + U * U) / 512 widens the steps outwards. So one more plane halves the step of
   every weight, and nothing else changes.

   Weights become 16-bit integers, a few rows at a time, and are multiplied with activations that
   are rounded to 13 bits: sums over 256 of them are exact in 32 bits. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define WIDE 1
#endif

enum { PLANES = 6, GROUP = 16, WORD = 32, SPAN = 256, TILE = 4, X_MOST = 4095 };

/* Where the bytes of a matrix are. Ascending rows in each part; every plane is a string of bits,
   32 to a word, the first weight in the lowest bit. */
typedef struct {
    int64_t rows, columns;       /* columns: a multiple of 32 */
    int64_t chunk_rows;          /* rows of a chunk, a multiple of TILE; the last may have fewer */
    const uint16_t *scales;      /* [rows][spans]: bfloat16, one for 256 weights */
    const uint8_t *nibbles;      /* [rows][columns / 32]: one for 16 weights, the lower one first */
    const uint8_t *const *planes; /* [chunks][PLANES] */
    const int32_t *levels;       /* [chunks]: planes that are loaded */
} Matrix;

static int64_t spans_of(int64_t columns) { return (columns + SPAN - 1) / SPAN; }

static float scale_of(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static int widened(int u) { return (u * 128 * (12288 + u * u)) >> 16; }

/* ------------------------------------------------------------------ expanding weights */

/* v for each code of each level: a code has the bit of plane p at 32 >> p. */
static int16_t values[PLANES + 1][64];

static int lowest_of(int level) { return (64 >> level) - 64; }

/* One row as 16-bit integers, padded with zeros to whole spans. `level` is known when this is
   compiled, so that its loops are rolled out. */
static inline __attribute__((always_inline)) void expand_level(
    const int level, const uint32_t *const *planes, const uint8_t *nibbles, int64_t words,
    int16_t *out) {
#ifdef WIDE
    const __m512i table0 = _mm512_loadu_si512(values[level]),
                  table1 = _mm512_loadu_si512(values[level] + 32);
    const __m512i second = _mm512_maskz_set1_epi16(0xffff0000u, 1);
    for (int64_t first = 0; first < words; first += SPAN / WORD) {
        const int n = words - first < SPAN / WORD ? (int)(words - first) : SPAN / WORD;
        uint64_t packed = 0;
        memcpy(&packed, nibbles + first, (size_t)n);
        const __m128i bytes = _mm_set1_epi64x((long long)packed), low = _mm_set1_epi8(15);
        const __m128i apart = _mm_unpacklo_epi8(
            _mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
        const __m512i all = _mm512_castsi256_si512(_mm256_cvtepu8_epi16(apart));
        for (int i = 0; i < n; i++) {
            __m512i code = _mm512_setzero_si512();
            for (int p = 0; p < level; p++)
                code = _mm512_mask_add_epi16(code, planes[p][first + i], code,
                                             _mm512_set1_epi16((short)(32 >> p)));
            const __m512i v = _mm512_permutex2var_epi16(table0, code, table1);
            const __m512i which = _mm512_add_epi16(second, _mm512_set1_epi16((short)(2 * i)));
            const __m512i nibble = _mm512_permutexvar_epi16(which, all);
            _mm512_storeu_si512(out + (first + i) * WORD, _mm512_mullo_epi16(v, nibble));
        }
    }
#else
    for (int64_t w = 0; w < words; w++) {
        int16_t u[WORD];
        for (int i = 0; i < WORD; i++) u[i] = (int16_t)lowest_of(level);
        for (int p = 0; p < level; p++) {
            const uint32_t bits = planes[p][w];
            const int16_t step = 64 >> p;
            for (int i = 0; i < WORD; i++) u[i] += (int16_t)((bits >> i) & 1) * step;
        }
        const int16_t low = nibbles[w] & 15, high = nibbles[w] >> 4;
        for (int i = 0; i < WORD; i++) {
            const int16_t v = ((int32_t)(int16_t)(u[i] * 128) * (int16_t)(12288 + u[i] * u[i])) >> 16;
            out[w * WORD + i] = v * (i < GROUP ? low : high);
        }
    }
#endif
}

static void expand(const Matrix *m, int64_t row, int16_t *out) {
    const int64_t chunk = row / m->chunk_rows, words = m->columns / WORD;
    const int64_t at = (row - chunk * m->chunk_rows) * words;
    const uint8_t *nibbles = m->nibbles + row * words;
    const uint32_t *planes[PLANES];
    const int level = m->levels[chunk];
    for (int p = 0; p < level; p++)
        planes[p] = (const uint32_t *)m->planes[chunk * PLANES + p] + at;
    switch (level) {
    case 1: expand_level(1, planes, nibbles, words, out); break;
    case 2: expand_level(2, planes, nibbles, words, out); break;
    case 3: expand_level(3, planes, nibbles, words, out); break;
    case 4: expand_level(4, planes, nibbles, words, out); break;
    case 5: expand_level(5, planes, nibbles, words, out); break;
    default: expand_level(6, planes, nibbles, words, out);
    }
    const int64_t end = spans_of(m->columns) * SPAN;
    memset(out + m->columns, 0, (size_t)(end - m->columns) * sizeof *out);
}

/* ------------------------------------------------------------------------ multiplying */

/* One column of activations as integers, a scale for each span. */
static void round_column(const float *x, int64_t columns, int16_t *out, float *scales) {
    for (int64_t s = 0; s < spans_of(columns); s++) {
        const int64_t n = columns - s * SPAN < SPAN ? columns - s * SPAN : SPAN;
        const float *from = x + s * SPAN;
        int16_t *to = out + s * SPAN;
        float most = 0;
        for (int64_t i = 0; i < n; i++) most = fabsf(from[i]) > most ? fabsf(from[i]) : most;
        const float inverse = most > 0 ? X_MOST / most : 0;
        for (int64_t i = 0; i < n; i++) to[i] = (int16_t)lrintf(from[i] * inverse);
        for (int64_t i = n; i < SPAN; i++) to[i] = 0;
        scales[s] = most / X_MOST;
    }
}

/* y[c][r] for TILE rows and up to TILE columns. */
static void multiply_tile(int64_t spans, const int16_t *w, const float *w_scales, int n_rows,
                          const int16_t *x, const float *x_scales, int n_columns,
                          float *const *y) {
#ifdef WIDE
    if (n_rows == TILE && n_columns == TILE) {
        __m512 sums[TILE][TILE];
        for (int r = 0; r < TILE; r++)
            for (int c = 0; c < TILE; c++) sums[r][c] = _mm512_setzero_ps();
        for (int64_t s = 0; s < spans; s++) {
            __m512i part[TILE][TILE];
            for (int r = 0; r < TILE; r++)
                for (int c = 0; c < TILE; c++) part[r][c] = _mm512_setzero_si512();
            for (int i = 0; i < SPAN; i += WORD) {
                __m512i a[TILE], b[TILE];
                for (int r = 0; r < TILE; r++)
                    a[r] = _mm512_loadu_si512(w + (r * spans + s) * SPAN + i);
                for (int c = 0; c < TILE; c++)
                    b[c] = _mm512_loadu_si512(x + (c * spans + s) * SPAN + i);
                for (int r = 0; r < TILE; r++)
                    for (int c = 0; c < TILE; c++)
                        part[r][c] = _mm512_dpwssd_epi32(part[r][c], a[r], b[c]);
            }
            for (int r = 0; r < TILE; r++)
                for (int c = 0; c < TILE; c++) {
                    const float scale = w_scales[r * spans + s] * x_scales[c * spans + s];
                    sums[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[r][c]),
                                                 _mm512_set1_ps(scale), sums[r][c]);
                }
        }
        for (int r = 0; r < TILE; r++)
            for (int c = 0; c < TILE; c++) y[c][r] = _mm512_reduce_add_ps(sums[r][c]);
        return;
    }
#endif
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_columns; c++) {
#ifdef WIDE
            __m512 sums = _mm512_setzero_ps();
#else
            float sums = 0;
#endif
            for (int64_t s = 0; s < spans; s++) {
                const int16_t *a = w + (r * spans + s) * SPAN, *b = x + (c * spans + s) * SPAN;
                const float scale = w_scales[r * spans + s] * x_scales[c * spans + s];
#ifdef WIDE
                __m512i part = _mm512_setzero_si512();
                for (int i = 0; i < SPAN; i += WORD)
                    part = _mm512_dpwssd_epi32(part, _mm512_loadu_si512(a + i),
                                               _mm512_loadu_si512(b + i));
                sums = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), _mm512_set1_ps(scale), sums);
            }
            y[c][r] = _mm512_reduce_add_ps(sums);
#else
                int32_t part = 0;
                for (int i = 0; i < SPAN; i++) part += (int32_t)a[i] * b[i];
                sums += (float)part * scale;
            }
            y[c][r] = sums;
#endif
        }
}

/* Bytes that planes_multiply needs beside its operands. */
int64_t planes_scratch(int64_t columns, int64_t n, int32_t threads) {
    const int64_t spans = spans_of(columns), row = spans * (SPAN * 2 + 4);
    return (n + (int64_t)threads * TILE) * row + 64;
}

/* y = W x for n columns; x_stride and y_stride are floats from one column to the next. */
void planes_multiply(const Matrix *m, const float *x, int64_t x_stride, float *y, int64_t y_stride,
                     int64_t n, int32_t threads, void *scratch) {
    const int64_t spans = spans_of(m->columns), padded = spans * SPAN;
    int16_t *rounded = scratch;
    float *x_scales = (float *)(rounded + n * padded);
    int16_t *tiles = (int16_t *)(x_scales + n * spans);
    float *tile_scales = (float *)(tiles + threads * TILE * padded);
#pragma omp parallel for schedule(static) num_threads(threads) if (n >= 16)
    for (int64_t c = 0; c < n; c++)
        round_column(x + c * x_stride, m->columns, rounded + c * padded, x_scales + c * spans);
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        extern int omp_get_thread_num(void);
        const int me = omp_get_thread_num();
#else
        const int me = 0;
#endif
        int16_t *tile = tiles + me * TILE * padded;
        float *scales = tile_scales + me * TILE * spans;
#pragma omp for schedule(dynamic, 4) nowait
        for (int64_t row = 0; row < m->rows; row += TILE) {
            const int n_rows = m->rows - row < TILE ? (int)(m->rows - row) : TILE;
            for (int r = 0; r < n_rows; r++) {
                expand(m, row + r, tile + r * padded);
                for (int64_t s = 0; s < spans; s++)
                    scales[r * spans + s] = scale_of(m->scales[(row + r) * spans + s]);
            }
            for (int64_t c = 0; c < n; c += TILE) {
                const int n_columns = n - c < TILE ? (int)(n - c) : TILE;
                float *to[TILE];
                for (int i = 0; i < n_columns; i++) to[i] = y + (c + i) * y_stride + row;
                multiply_tile(spans, tile, scales, n_rows, rounded + c * padded,
                              x_scales + c * spans, n_columns, to);
            }
        }
    }
}

/* The rows with these numbers as floats; scratch holds one expanded row. */
void planes_rows(const Matrix *m, const int32_t *numbers, int64_t n, float *y, int64_t y_stride,
                 int16_t *scratch) {
    const int64_t spans = spans_of(m->columns);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = numbers[i];
        expand(m, row, scratch);
        for (int64_t c = 0; c < m->columns; c++)
            y[i * y_stride + c] = scratch[c] * scale_of(m->scales[row * spans + c / SPAN]);
    }
}

/* ---------------------------------------------------------------------------- packing */

enum { INVERSE = 4096 };
static float inverse[INVERSE + 1]; /* t for t * (3 + t * t) / 4 = i / INVERSE */

void planes_start(void) {
    for (int level = 1; level <= PLANES; level++)
        for (int code = 0; code < 64; code += 64 >> level)
            values[level][code] = (int16_t)widened(lowest_of(level) + 2 * code);
    for (int i = 0; i <= INVERSE; i++) inverse[i] = (float)(2 * sinh(asinh(2.0 * i / INVERSE) / 3));
}

/* The six bits of a weight of `ratio` times its group's scale. */
static int code_of(float ratio) {
    const float most = fabsf(ratio) < 1 ? fabsf(ratio) : 1;
    const float t = inverse[(int)(most * INVERSE + 0.5f)];
    const int code = 32 + (int)floorf((ratio < 0 ? -t : t) * 32);
    return code < 0 ? 0 : code > 63 ? 63 : code;
}

/* U of a code of which only the first `level` bits are known. */
static int moved(int code, int level) {
    return ((code >> (PLANES - level)) * 2 + 1 - (1 << level)) << (PLANES - level);
}

/* Encode rows of floats. `importance` weighs the columns. Adds to errors[level], for each number of
   planes, the weighted squared error that remains with it; errors[0] is the weighted energy. */
void planes_encode(const float *w, const float *importance, int64_t rows, int64_t columns,
                   uint16_t *scales, uint8_t *nibbles, uint8_t *const *planes, double *errors,
                   int32_t threads) {
    const int64_t spans = spans_of(columns);
    double all[PLANES + 1] = {0};
    static float value[PLANES + 1][64]; /* what a code stands for, in units of the group's scale */
    for (int level = 1; level <= PLANES; level++)
        for (int code = 0; code < 64; code++)
            value[level][code] = (float)widened(moved(code, level)) / 2048;
#pragma omp parallel for schedule(dynamic, 8) num_threads(threads) reduction(+ : all[:PLANES + 1])
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t s = 0; s < spans; s++) {
            const int64_t first = s * SPAN;
            const int groups = (int)((columns - first < SPAN ? columns - first : SPAN) / GROUP);
            const float *from = w + row * columns + first, *weight = importance + first;
            float most = 0, largest[SPAN / GROUP];
            for (int g = 0; g < groups; g++) {
                largest[g] = 0;
                for (int i = 0; i < GROUP; i++)
                    largest[g] = fmaxf(largest[g], fabsf(from[g * GROUP + i]));
                most = fmaxf(most, largest[g]);
            }
            float exact = most * 1.05f / 15; /* groups may be scaled a little beyond their largest */
            uint32_t bits;
            memcpy(&bits, &exact, 4);
            const float unit = scale_of((uint16_t)((bits + 0xffff) >> 16));
            exact = unit / 2048; /* a power of two: exact */
            memcpy(&bits, &exact, 4);
            scales[row * spans + s] = (uint16_t)(bits >> 16);
            for (int g = 0; g < groups; g++) {
                const float *x = from + g * GROUP, *h = weight + g * GROUP;
                const float wanted = unit > 0 ? largest[g] / unit : 0;
                int low = (int)(wanted * 0.7f), high = (int)ceilf(wanted * 1.3f), best = 0;
                low = low < 1 ? 1 : low;
                high = high > 15 ? 15 : high;
                float least = 3e38f;
                for (int nibble = low; nibble <= high && wanted > 0; nibble++) {
                    const float scale = unit * nibble, over = 1 / scale;
                    float error = 0;
                    for (int i = 0; i < GROUP; i++) {
                        const int code = code_of(x[i] * over);
                        const float fine = x[i] - scale * value[4][code];
                        const float coarse = x[i] - scale * value[3][code];
                        error += h[i] * (4 * fine * fine + coarse * coarse);
                    }
                    if (error < least) least = error, best = nibble;
                }
                const int64_t at = row * columns + first + g * GROUP;
                uint8_t *nibble = nibbles + at / WORD;
                *nibble = at % WORD ? (uint8_t)(*nibble | best << 4) : (uint8_t)best;
                uint16_t word[PLANES] = {0};
                for (int i = 0; i < GROUP; i++) {
                    const int code = best ? code_of(x[i] / (unit * best)) : 32;
                    for (int p = 0; p < PLANES; p++)
                        word[p] |= (uint16_t)((code >> (PLANES - 1 - p) & 1) << i);
                    all[0] += h[i] * x[i] * x[i];
                    for (int level = 1; level <= PLANES; level++) {
                        const float off = x[i] - unit * best * value[level][code];
                        all[level] += h[i] * off * off;
                    }
                }
                for (int p = 0; p < PLANES; p++) {
                    planes[p][at / 8] = (uint8_t)word[p];
                    planes[p][at / 8 + 1] = (uint8_t)(word[p] >> 8);
                }
            }
        }
    }
    for (int level = 0; level <= PLANES; level++) errors[level] += all[level];
}

/* ------------------------------------------------------------------------- checksums */

/* FNV-1a in 32 lanes of 32-bit words, the lanes then hashed the same way: a change of a single
   word always changes it. Zeros fill the last word. */
uint32_t planes_checksum(const uint8_t *bytes, int64_t n_bytes) {
    enum { LANES = 32 };
    uint32_t lanes[LANES], sum = 2166136261u;
    for (int i = 0; i < LANES; i++) lanes[i] = 2166136261u;
    const int64_t words = n_bytes / 4;
    int64_t at = 0, used = 0;
    for (; at + LANES <= words; at += LANES) {
        uint32_t some[LANES];
        memcpy(some, bytes + at * 4, sizeof some);
        for (int i = 0; i < LANES; i++) lanes[i] = (lanes[i] ^ some[i]) * 16777619u;
    }
    for (; at * 4 < n_bytes; at++, used++) {
        uint32_t one = 0;
        memcpy(&one, bytes + at * 4, (size_t)(n_bytes - at * 4 < 4 ? n_bytes - at * 4 : 4));
        lanes[used] = (lanes[used] ^ one) * 16777619u;
    }
    for (int i = 0; i < LANES; i++) sum = (sum ^ lanes[i]) * 16777619u;
    return sum;
}

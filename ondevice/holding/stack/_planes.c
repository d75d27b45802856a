/* The arithmetic of residual stacks: matrices in bit planes, multiplied as they lie.

   docs/design/stack-format.md says what the bytes mean. In short: a weight is scale * nibble * U, where
   each plane p that is loaded moves U by 64 >> p, up where its bit is 1 and down where it is 0. So
   one more plane halves the step of every weight, and nothing else changes.

   Weights become integers, a few rows at a time, and are multiplied with activations that are
   rounded to integers; their sums are exact. What a column comes to does not depend on how many
   there are. How that is done best depends on the processor's instructions. */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "_tensor.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16") /* so that what they index stays in registers */

enum { PLANES = 7, CODES = 1 << PLANES, GROUP = 16, WORD = 32, SPAN = 256 };
enum {
    ROWS = 4, COLUMNS = 4, /* of a tile: its sums are in registers */
    GATHERED = 32,         /* rows that are expanded before they meet a second tile of columns */
    PASS = 96,             /* columns that are rounded at once */
    SHARES = 4,            /* into which a thread's part is cut, for when one is slower */
    AHEAD = 1024           /* bytes of a plane that are wanted early: there are many streams */
};

enum { SCALES, NIBBLES, FIRST_PLANE, PARTS = FIRST_PLANE + PLANES }; /* of a chunk */

/* Where the bytes of a matrix are: some rows after the others are a chunk, which has its scales
   (bfloat16, one for 256 weights of a row), its nibbles (one for 16 weights, the lower one first)
   and its planes (strings of bits, the first weight in the lowest one), each row after row. */
typedef struct {
    int64_t rows, columns;       /* columns: a multiple of 32 */
    int64_t chunk_rows;          /* rows of a chunk, a multiple of ROWS; the last may have fewer */
    const uint8_t *const *parts; /* [chunks][PARTS] */
    const int32_t *levels;       /* [chunks]: planes that are loaded */
    uint8_t *scratch;            /* planes_scratch(columns) bytes for each thread */
    int64_t threads;             /* that there is scratch for; others do nothing */
    _Atomic int64_t next;        /* the first row that no thread has taken */
    _Atomic int64_t done;        /* threads that found no row left */
} Matrix;

static int64_t spans_of(int64_t columns) { return (columns + SPAN - 1) / SPAN; }

static int64_t padded(int64_t columns) { return spans_of(columns) * SPAN; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static float scale_of(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* A row: its planes that are loaded, the nibbles of its groups and the scales of its spans. */
typedef struct {
    const uint8_t *planes[PLANES], *nibbles;
    const uint16_t *scales;
    int level;
} Row;

/* U of a code, which has a bit for each plane that is loaded, the first one highest. */
static int moved(int code, int level) { return (2 * code + 1 - (1 << level)) << (PLANES - level); }

static float largest_of(const float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* A statement for each number of planes, so that it is compiled for it. */
#define FOR_LEVEL(level, statement) \
    switch (level) { \
    case 1: statement(1); break; \
    case 2: statement(2); break; \
    case 3: statement(3); break; \
    case 4: statement(4); break; \
    case 5: statement(5); break; \
    case 6: statement(6); break; \
    default: statement(7); \
    }

#if defined(__AVX512BW__) && defined(__AVX512VBMI__) && defined(__AVX512VNNI__) && defined(__GFNI__)
#include "_planes_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "_planes_avx2.h"
#else
#include "_planes_plain.h"
#endif

static Row row_of(const Matrix *m, int64_t number) {
    const int64_t chunk = number / m->chunk_rows, at = number - chunk * m->chunk_rows;
    const uint8_t *const *parts = m->parts + chunk * PARTS;
    Row row = {.level = m->levels[chunk]};
    row.scales = (const uint16_t *)parts[SCALES] + at * spans_of(m->columns);
    row.nibbles = parts[NIBBLES] + at * (m->columns / WORD);
    for (int p = 0; p < row.level; p++)
        row.planes[p] = parts[FIRST_PLANE + p] + at * (m->columns / 8);
    return row;
}

/* One row as integers, and the scale of each span. */
static void expand(const Matrix *m, int64_t number, int16_t *out, float *scales) {
    const Row row = row_of(m, number);
    for (int64_t s = 0; s < spans_of(m->columns); s++) scales[s] = scale_of(row.scales[s]);
#define EXPAND(level) expand_level(level, &row, m->columns, out)
    FOR_LEVEL(row.level, EXPAND)
#undef EXPAND
}

/* One column of activations as integers, and their scales; `alone`: it is the only one. */
static void round_column(const float *x, int64_t columns, int alone, int16_t *out, float *scales) {
    for (int64_t s = 0; s < spans_of(columns); s++)
        round_span(x + s * SPAN, (int)least(columns - s * SPAN, SPAN), alone, out + s * SPAN,
                   scales + s * X_SCALES);
}

/* ------------------------------------------------------------------------ multiplying */

/* What a thread needs: weights that are expanded, and activations that are rounded. */
typedef struct {
    int16_t *weights, *x;
    float *weight_scales, *x_scales;
} Scratch;

/* Bytes of a thread, a multiple of 64. */
int64_t planes_scratch(int64_t columns) {
    const int64_t spans = (spans_of(columns) + 15) / 16 * 16;
    return (GATHERED + PASS) * padded(columns) * 2 + (GATHERED + PASS * X_SCALES) * spans * 4;
}

static Scratch scratch_of(const Matrix *m, int thread) {
    uint8_t *start = m->scratch + thread * planes_scratch(m->columns);
    Scratch s;
    s.weights = (int16_t *)start;
    s.x = s.weights + GATHERED * padded(m->columns);
    s.x_scales = (float *)(s.x + PASS * padded(m->columns));
    s.weight_scales = s.x_scales + PASS * X_SCALES * spans_of(m->columns);
    return s;
}

/* These rows times n columns that have been rounded. The columns of the result start where y says,
   with the row `origin`. */
static void multiply_rows(const Matrix *m, const Scratch *s, int64_t first, int64_t last,
                          int64_t origin, int64_t n, float *const *y) {
    const int64_t spans = spans_of(m->columns), width = padded(m->columns);
#ifdef ONE_COLUMN
    if (n == 1) {
        for (int64_t row = first, next; row < last; row = next) {
            next = least(last, (row / m->chunk_rows + 1) * m->chunk_rows);
            const Row start = row_of(m, row);
            float *const to = y[0] + row - origin;
#define MULTIPLY(level) \
    multiply_column(level, start, next - row, m->columns, s->x, s->x_scales, to)
            FOR_LEVEL(start.level, MULTIPLY)
#undef MULTIPLY
        }
        return;
    }
#endif
    const int gathered = n > COLUMNS ? GATHERED : ROWS;
    for (int64_t row = first; row < last; row += gathered) {
        const int64_t n_rows = least(last - row, gathered);
        for (int64_t r = 0; r < n_rows; r++)
            expand(m, row + r, s->weights + r * width, s->weight_scales + r * spans);
        for (int64_t c = 0; c < n; c += COLUMNS)
            for (int64_t r = 0; r < n_rows; r += ROWS) {
                const int16_t *w = s->weights + r * width, *x = s->x + c * width;
                const float *w_scales = s->weight_scales + r * spans;
                const float *x_scales = s->x_scales + c * spans * X_SCALES;
                const int some = (int)least(n_rows - r, ROWS);
#define TIMES(n) multiply_tile(n, spans, w, w_scales, x, x_scales, y + c, row + r - origin, some)
                switch (least(n - c, COLUMNS)) {
                case 1: TIMES(1); break;
                case 2: TIMES(2); break;
                case 3: TIMES(3); break;
                default: TIMES(4);
                }
#undef TIMES
            }
    }
}

/* Rows of which a thread takes so many at a time. */
static int64_t share_of(int64_t rows, int threads) {
    return (rows / (threads * SHARES) / GATHERED + 1) * GATHERED;
}

/* A thread is done with a node. All of them wait for all before the next one. */
static void finish(Matrix *m, int threads) {
    if (atomic_fetch_add(&m->done, 1) + 1 == threads) {
        m->next = 0;
        m->done = 0;
    }
}

/* The part of thread `me` of `threads` in y = W x for n columns and the rows from `begin` to `end`;
   x_stride and y_stride are floats from one column to the next. Many columns are shared out among
   the threads, otherwise the rows. */
static void multiply(Matrix *m, int64_t begin, int64_t end, const float *x, int64_t x_stride,
                     float *y, int64_t y_stride, int64_t n, int me, int threads) {
    threads = (int)least(threads, m->threads);
    if (me >= threads) return;
    const Scratch s = scratch_of(m, me);
    const int64_t width = padded(m->columns), spans = spans_of(m->columns);
    const int by_columns = n > PASS;
    const int64_t first = by_columns ? n * me / threads : 0;
    const int64_t last = by_columns ? n * (me + 1) / threads : n;
    for (int64_t at = first; at < last; at += PASS) {
        const int64_t some = least(last - at, PASS);
        float *to[PASS];
        for (int64_t c = 0; c < some; c++) {
            round_column(x + (at + c) * x_stride, m->columns, some == 1, s.x + c * width,
                         s.x_scales + c * spans * X_SCALES);
            to[c] = y + (at + c) * y_stride;
        }
        if (by_columns) {
            multiply_rows(m, &s, begin, end, 0, some, to);
            continue;
        }
        const int64_t share = share_of(end - begin, threads);
        for (int64_t row; (row = begin + atomic_fetch_add(&m->next, share)) < end;)
            multiply_rows(m, &s, row, least(row + share, end), 0, some, to);
    }
    finish(m, threads);
}

/* Which experts are wanted: ids[token * ids_stride + slot] is one of them, to be multiplied with
   x + token * x_token + (slot or 0) * x_slot, into y + token * y_token + slot * y_slot. */
typedef struct {
    const int32_t *ids;
    const float *x;
    float *y;
    int64_t n_rows, n_slots, n_tokens; /* n_rows: of an expert */
    int64_t ids_stride, x_slot, x_token, y_slot, y_token;
} Routing;

/* The pairs of token and slot from the given one on that want this expert, at most PASS of them;
   where to look next. */
static int64_t wanting(const Routing *r, int32_t expert, int64_t from, int64_t *pairs, int64_t *n) {
    int64_t pair = from;
    for (*n = 0; pair < r->n_tokens * r->n_slots && *n < PASS; pair++)
        if (r->ids[pair / r->n_slots * r->ids_stride + pair % r->n_slots] == expert)
            pairs[(*n)++] = pair;
    return pair;
}

/* The part of thread `me` in the products of a mixture of experts, whose rows lie one expert after
   the other; of those from `begin` to `end`. */
static void multiply_experts(Matrix *m, int64_t begin, int64_t end, const Routing *r, int me,
                             int threads) {
    threads = (int)least(threads, m->threads);
    if (me >= threads) return;
    const Scratch s = scratch_of(m, me);
    const int64_t width = padded(m->columns), spans = spans_of(m->columns);
    const int64_t share = share_of(r->n_rows, threads);
    int64_t before = 0, mine = atomic_fetch_add(&m->next, 1); /* shares of all threads, and ours */
    for (int64_t expert = begin / r->n_rows; expert * r->n_rows < end; expert++) {
        const int64_t origin = expert * r->n_rows;
        const int64_t first = origin > begin ? origin : begin;
        const int64_t last = least(origin + r->n_rows, end);
        int64_t pairs[PASS], n, pair = 0;
        while (pair = wanting(r, (int32_t)expert, pair, pairs, &n), n > 0) {
            const int64_t shares = (last - first + share - 1) / share;
            float *to[PASS];
            for (int64_t c = 0; c < n && mine < before + shares; c++) {
                const int64_t token = pairs[c] / r->n_slots, slot = pairs[c] % r->n_slots;
                round_column(r->x + token * r->x_token + slot * r->x_slot, m->columns, n == 1,
                             s.x + c * width, s.x_scales + c * spans * X_SCALES);
                to[c] = r->y + token * r->y_token + slot * r->y_slot;
            }
            for (; mine < before + shares; mine = atomic_fetch_add(&m->next, 1)) {
                const int64_t row = first + (mine - before) * share;
                multiply_rows(m, &s, row, least(row + share, last), origin, n, to);
            }
            before += shares;
        }
    }
    finish(m, threads);
}

/* The rows with these numbers as floats. */
static void take_rows(const Matrix *m, const int32_t *numbers, int64_t n, float *y,
                      int64_t y_stride) {
    const Scratch s = scratch_of(m, 0);
    for (int64_t i = 0; i < n; i++) {
        expand(m, numbers[i], s.weights, s.weight_scales);
        for (int64_t c = 0; c < m->columns; c++)
            y[i * y_stride + c] =
                s.weights[c / SPAN * SPAN + place(c % SPAN)] * s.weight_scales[c / SPAN];
    }
}

/* --------------------------------------------------------------------- nodes of a graph */

/* Elements of 4 bytes along a dimension. */
static int64_t stride_of(const void *tensor, int i) { return bytes_of(tensor, i) / 4; }

/* Some rows of what a MUL_MAT node comes to, or one of MUL_MAT_ID, which has a third operand. */
void planes_multiply(void *node, int me, int threads, void *matrix, int64_t begin, int64_t end) {
    const void *x = operand_of(node, 1), *ids = operand_of(node, 2);
    if (!ids) {
        multiply(matrix, begin, end, data_of(x), stride_of(x, 1), data_of(node),
                 stride_of(node, 1), n_of(x, 1), me, threads);
        return;
    }
    const Routing routing = {
        .ids = data_of(ids),
        .x = data_of(x),
        .y = data_of(node),
        .n_rows = n_of(node, 0),
        .n_slots = n_of(ids, 0),
        .n_tokens = n_of(ids, 1),
        .ids_stride = stride_of(ids, 1),
        .x_slot = n_of(x, 1) > 1 ? stride_of(x, 1) : 0,
        .x_token = stride_of(x, 2),
        .y_slot = stride_of(node, 1),
        .y_token = stride_of(node, 2),
    };
    multiply_experts(matrix, begin, end, &routing, me, threads);
}

/* What ggml calls, on each of its threads, for such a node that was made a CUSTOM one. */
void planes_multiply_node(void *node, int me, int threads, void *matrix) {
    planes_multiply(node, me, threads, matrix, 0, ((Matrix *)matrix)->rows);
}

/* The same for GET_ROWS. */
void planes_rows_node(void *node, int me, int threads, void *matrix) {
    const void *numbers = operand_of(node, 1);
    (void)threads;
    if (me == 0)
        take_rows(matrix, data_of(numbers), n_of(numbers, 0), data_of(node), stride_of(node, 1));
}

/* ---------------------------------------------------------------------------- packing */

enum { LEAST_WELL = 3 }; /* planes from which on every number of them should do well */
static float value[PLANES + 1][CODES]; /* U / 128 with so many planes of a code that has all */

void planes_start(void) {
    for (int level = 1; level <= PLANES; level++)
        for (int code = 0; code < CODES; code++)
            value[level][code] = (float)moved(code >> (PLANES - level), level) / CODES;
#ifdef FILL_TABLES
    FILL_TABLES;
#endif
}

/* The code, with all planes, of a weight of `ratio` times its group's scale. */
static int code_of(float ratio) {
    const int code = CODES / 2 + (int)floorf(ratio * (CODES / 2));
    return code < 0 ? 0 : code > CODES - 1 ? CODES - 1 : code;
}

/* Encode rows of floats. `importance` weighs the columns. Adds to errors[level], for each number of
   planes, the weighted squared error that remains with it; errors[0] is the weighted energy. */
void planes_encode(const float *w, const float *importance, int64_t rows, int64_t columns,
                   uint16_t *scales, uint8_t *nibbles, uint8_t *const *planes, double *errors) {
    const int64_t spans = spans_of(columns);
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
            exact = unit / CODES; /* a power of two: exact */
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
                        for (int level = LEAST_WELL; level <= PLANES; level++) {
                            const float off = x[i] - scale * value[level][code];
                            error += h[i] * (1 << 2 * (level - LEAST_WELL)) * off * off;
                        }
                    }
                    if (error < least) least = error, best = nibble;
                }
                const int64_t at = row * columns + first + g * GROUP;
                uint8_t *nibble = nibbles + at / WORD;
                *nibble = at % WORD ? (uint8_t)(*nibble | best << 4) : (uint8_t)best;
                uint16_t word[PLANES] = {0};
                for (int i = 0; i < GROUP; i++) {
                    const int code = best ? code_of(x[i] / (unit * best)) : CODES / 2;
                    for (int p = 0; p < PLANES; p++)
                        word[p] |= (uint16_t)((code >> (PLANES - 1 - p) & 1) << i);
                    errors[0] += h[i] * x[i] * x[i];
                    for (int level = 1; level <= PLANES; level++) {
                        const float off = x[i] - unit * best * value[level][code];
                        errors[level] += h[i] * off * off;
                    }
                }
                for (int p = 0; p < PLANES; p++) {
                    planes[p][at / 8] = (uint8_t)word[p];
                    planes[p][at / 8 + 1] = (uint8_t)(word[p] >> 8);
                }
            }
        }
    }
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

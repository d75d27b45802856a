/* Attention as one operation: softmax(q·k + mask)·v for all heads, as ggml's FLASH_ATTN_EXT has it.

   What a query comes to depends on nothing but the query, its keys and its values: not on how many
   queries there are, nor on how they are shared out among threads. Keys are taken in chunks of a
   fixed length. Within a chunk every score is a sum over the head's dimension in order, every
   output a sum over positions in order; chunks are put together in order (online softmax, Milakov
   and Gimelshein 2018; FlashAttention, Dao et al. 2022).

   All queries that share a key and value head are rows of one matrix, so that keys and values are
   unpacked once for many of them, and two small matrix products do the rest. */

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "_tensor.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

/* Floats of a register, and registers of a row of sums. A vector that is wider than what the
   processor has would lie in memory. */
#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 2 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 2 };
#elif defined(__aarch64__)
enum { LANES = 4, VECTORS = 4 };
#else
enum { LANES = 4, VECTORS = 2 };
#endif
enum {
    ROWS = 64,      /* queries of a block at most */
    TILE = 64,      /* keys that are unpacked at once */
    CHUNK = 512,    /* keys whose scores are put together before the next ones: a multiple of TILE */
    TILES = CHUNK / TILE,
    HEAD = 576,     /* dimension of a head at most, a multiple of LANES */
    AT_ONCE = 6,    /* rows whose sums are in registers */
    SHARED = 1 << 20, /* floats of what threads leave for one another */
    PARTS = 256     /* blocks whose chunks are shared out, at most */
};

typedef float Lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* What a thread needs. */
typedef struct {
    float queries[ROWS * HEAD], scores[ROWS * CHUNK], tile[TILE * HEAD], rows[TILE * HEAD];
    float part[ROWS * HEAD], sum[ROWS * HEAD], mask[TILE];
    float part_most[ROWS], part_total[ROWS], most[ROWS], total[ROWS], slopes[ROWS];
} Scratch;

/* What all of them share. It is as it was when a node has been computed. */
typedef struct {
    int64_t threads;          /* that there is scratch for; others do nothing */
    Scratch *scratch;         /* [threads] */
    float *shared;            /* [SHARED] */
    _Atomic int64_t next;     /* the first piece of work that no thread has taken */
    _Atomic int64_t done;     /* threads that found no work left */
    _Atomic int32_t left[PARTS]; /* chunks of a block that are computed */
} Attention;

/* ----------------------------------------------------------------------------- tensors of ggml */

static int32_t op_attention;

enum { PARAMS = 64 }; /* bytes of a node's parameters */
enum { Q, K, V, MASK, SINKS };
enum { F32 = 0, F16 = 1, Q4_0 = 2, Q8_0 = 8, BF16 = 30 }; /* ggml's numbers of these types */

typedef struct {
    float scale, max_bias, softcap;
} Params;

/* ----------------------------------------------------------------------------------- unpacking */

static float half(uint16_t bits) {
#if defined(__F16C__)
    return _cvtsh_ss(bits); /* Clang 14 knows no _Float16 on x86 */
#elif defined(__aarch64__)
    _Float16 value;
    memcpy(&value, &bits, 2);
    return (float)value;
#else
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
    uint32_t wide = magnitude << 13;
    float value;
    if (magnitude >= 0x7c00) wide += 0x70000000; /* infinite, or no number */
    memcpy(&value, &wide, 4);
    value *= 0x1p112f;
    memcpy(&wide, &value, 4);
    if (magnitude >= 0x7c00) wide |= 0x7f800000;
    wide |= sign;
    memcpy(&value, &wide, 4);
    return value;
#endif
}

/* n numbers of a row; of a type in blocks, n is a multiple of 32. */
static void unpack(int32_t type, const char *from, int64_t n, float *out) {
    if (type == F32) {
        memcpy(out, from, n * 4);
    } else if (type == F16) {
        const uint16_t *x = (const uint16_t *)from;
        int64_t i = 0;
#ifdef __F16C__
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
        for (; i < n; i++) out[i] = half(x[i]);
    } else if (type == BF16) {
        const uint16_t *x = (const uint16_t *)from;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t wide = (uint32_t)x[i] << 16;
            memcpy(out + i, &wide, 4);
        }
    } else if (type == Q8_0) {
        for (int64_t block = 0; block < n / 32; block++, from += 34, out += 32) {
            uint16_t bits;
            memcpy(&bits, from, 2);
            const float scale = half(bits);
            for (int i = 0; i < 32; i++) out[i] = scale * (int8_t)from[2 + i];
        }
    } else { /* Q4_0 */
        for (int64_t block = 0; block < n / 32; block++, from += 18, out += 32) {
            uint16_t bits;
            memcpy(&bits, from, 2);
            const float scale = half(bits);
            for (int i = 0; i < 16; i++) {
                const uint8_t two = (uint8_t)from[2 + i];
                out[i] = scale * ((two & 15) - 8);
                out[i + 16] = scale * ((two >> 4) - 8);
            }
        }
    }
}

static bool is_known(int32_t type, int64_t n) {
    return type == F32 || type == F16 || type == BF16 || ((type == Q8_0 || type == Q4_0) && n % 32 == 0);
}

static int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------------------------------ products */

/* c (rows, columns) = a (rows, inner) · b (inner, columns), or more of it, for so many rows and
   vectors of columns. */
INLINE void multiply(int rows, int vectors, int64_t inner, const float *a, int64_t a_row,
                     const float *b, int64_t b_row, float *c, int64_t c_row, bool more) {
    Lanes sums[AT_ONCE][VECTORS];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < vectors; v++)
            sums[r][v] = more ? *(const Lanes *)(c + r * c_row + v * LANES) : (Lanes){0};
    for (int64_t i = 0; i < inner; i++) {
        Lanes of_b[VECTORS];
        UNROLLED for (int v = 0; v < vectors; v++)
            of_b[v] = *(const Lanes *)(b + i * b_row + v * LANES);
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int v = 0; v < vectors; v++) sums[r][v] += a[r * a_row + i] * of_b[v];
    }
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < vectors; v++)
            *(Lanes *)(c + r * c_row + v * LANES) = sums[r][v];
}

/* The same for any number of rows, and of columns that is a multiple of LANES. */
static void product(int64_t rows, int64_t columns, int64_t inner, const float *a, int64_t a_row,
                    const float *b, int64_t b_row, float *c, int64_t c_row, bool more) {
#define SOME(n, vectors) \
    multiply(n, vectors, inner, a + r * a_row, a_row, b + at, b_row, c + r * c_row + at, c_row, more)
    for (int64_t at = 0; at < columns;) {
        const int vectors = columns - at >= VECTORS * LANES ? VECTORS : 1;
        for (int64_t r = 0; r < rows;) {
            const int n = (int)least(rows - r, AT_ONCE);
            if (vectors == VECTORS)
                switch (n) {
                case 6: SOME(6, VECTORS); break;
                case 5: SOME(5, VECTORS); break;
                case 4: SOME(4, VECTORS); break;
                case 3: SOME(3, VECTORS); break;
                case 2: SOME(2, VECTORS); break;
                default: SOME(1, VECTORS);
                }
            else
                switch (n) {
                case 6: SOME(6, 1); break;
                case 5: SOME(5, 1); break;
                case 4: SOME(4, 1); break;
                case 3: SOME(3, 1); break;
                case 2: SOME(2, 1); break;
                default: SOME(1, 1);
                }
            r += n;
        }
        at += vectors * LANES;
    }
#undef SOME
}

#if __has_builtin(__builtin_shufflevector)
#define PICK __builtin_shufflevector
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (Picked){__VA_ARGS__})
#endif

/* rows (TILE, n) on their side: (n, TILE); n is a multiple of LANES. */
static void turn(const float *rows, int64_t n, float *out) {
#if defined(__AVX__)
    typedef int32_t Picked __attribute__((vector_size(32)));
    typedef float Lanes8 __attribute__((vector_size(32), aligned(4), may_alias));
    for (int64_t i = 0; i < n; i += 8)
        for (int64_t t = 0; t < TILE; t += 8) {
            Lanes8 r[8], a[8], b[8];
            UNROLLED for (int k = 0; k < 8; k++) r[k] = *(const Lanes8 *)(rows + (t + k) * n + i);
            UNROLLED for (int k = 0; k < 8; k += 2) {
                a[k] = PICK(r[k], r[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
                a[k + 1] = PICK(r[k], r[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
            }
            UNROLLED for (int k = 0; k < 8; k += 4)
                UNROLLED for (int h = 0; h < 2; h++) {
                    b[k + 2 * h] = PICK(a[k + h], a[k + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
                    b[k + 2 * h + 1] = PICK(a[k + h], a[k + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
                }
            UNROLLED for (int k = 0; k < 4; k++) {
                float *to = out + (i + k) * TILE + t;
                *(Lanes8 *)to = PICK(b[k], b[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
                *(Lanes8 *)(to + 4 * TILE) = PICK(b[k], b[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
            }
        }
#else
    typedef int32_t Picked __attribute__((vector_size(16)));
    for (int64_t i = 0; i < n; i += 4)
        for (int64_t t = 0; t < TILE; t += 4) {
            Lanes r[4], a[4];
            UNROLLED for (int k = 0; k < 4; k++) r[k] = *(const Lanes *)(rows + (t + k) * n + i);
            UNROLLED for (int k = 0; k < 4; k += 2) {
                a[k] = PICK(r[k], r[k + 1], 0, 4, 1, 5);
                a[k + 1] = PICK(r[k], r[k + 1], 2, 6, 3, 7);
            }
            UNROLLED for (int k = 0; k < 2; k++) {
                float *to = out + (i + 2 * k) * TILE + t;
                *(Lanes *)to = PICK(a[k], a[k + 2], 0, 1, 4, 5);
                *(Lanes *)(to + TILE) = PICK(a[k], a[k + 2], 2, 3, 6, 7);
            }
        }
#endif
}

/* e to the power of x, which is at most 0, to 2 units of the last place. */
INLINE Lanes power(Lanes x) {
    const Ints none = x < -87.0f;
    const Lanes magic = (Lanes){0} + 0x1.8p23f; /* rounds to an integer, in the lowest bits */
    const Lanes rounded = x * 0x1.715476p0f + magic, n = rounded - magic;
    const Lanes r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    Lanes y = r * 0x1.6d4324p-10f + 0x1.120b6ep-7f;
    y = y * r + 0x1.5554eap-5f;
    y = y * r + 0x1.5554dcp-3f;
    y = y * r + 0.5f;
    y = (y * r) * r + r + 1.0f;
    const Bits raised = (Bits)y + ((Bits)rounded << 23); /* where it becomes 0, it may overflow */
    return (Lanes)(raised & ~(Bits)none);
}

INLINE float sum_of(Lanes x) {
    float lanes[LANES];
    memcpy(lanes, &x, sizeof lanes);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* ----------------------------------------------------------------------------------- attention */

/* A node of the graph, and what is computed of it. */
typedef struct {
    const void *node, *q, *k, *v, *mask, *sinks;
    Params params;
    int64_t group;         /* queries of a token that share a key */
    int64_t rows, blocks;  /* queries that do, and blocks of them */
    int64_t head, out;     /* dimensions of keys and of values */
    int64_t keys, chunks;
} Task;

/* Queries that share their keys and values: of which head of keys, which sequence, and which ones. */
typedef struct {
    int64_t head, sequence, first, n;
} Block;

static Task task_of(const void *node) {
    Task t = {.node = node, .q = operand_of(node, Q), .k = operand_of(node, K), .v = operand_of(node, V)};
    t.mask = operand_of(node, MASK), t.sinks = operand_of(node, SINKS);
    memcpy(&t.params, params_of(node) + PARAMS - sizeof t.params, sizeof t.params);
    t.head = n_of(t.k, 0), t.out = n_of(t.v, 0), t.keys = n_of(t.k, 1);
    t.group = n_of(t.q, 2) / n_of(t.k, 2);
    t.rows = n_of(t.q, 1) * t.group;
    t.blocks = (t.rows + ROWS - 1) / ROWS;
    t.chunks = (t.keys + CHUNK - 1) / CHUNK;
    return t;
}

static Block block_of(const Task *t, int64_t number) {
    Block b = {.first = number % t->blocks * ROWS};
    number /= t->blocks;
    b.n = least(ROWS, t->rows - b.first);
    b.head = number % n_of(t->k, 2);
    b.sequence = number / n_of(t->k, 2);
    return b;
}

static int64_t token_of(const Task *t, int64_t row) { return row / t->group; }

static int64_t head_of(const Task *t, const Block *b, int64_t row) {
    return b->head * t->group + row % t->group;
}

/* By which a head multiplies its mask (ALiBi, Press et al. 2022). */
static float slope_of(const Task *t, int64_t head) {
    const float bias = t->params.max_bias;
    if (bias <= 0) return 1;
    int64_t heads = 1; /* the largest power of two of them */
    while (2 * heads <= n_of(t->q, 2)) heads *= 2;
    return head < heads ? powf(powf(2, -bias / heads), head + 1)
                        : powf(powf(2, -bias / 2 / heads), 2 * (head - heads) + 1);
}

static void take_queries(const Task *t, const Block *b, Scratch *s) {
    float scale = t->params.scale;
    if (t->params.softcap != 0) scale /= t->params.softcap;
    for (int64_t r = 0; r < b->n; r++) {
        const int64_t row = b->first + r, head = head_of(t, b, row);
        const float *x = (const float *)(data_of(t->q) + token_of(t, row) * bytes_of(t->q, 1) +
                                         head * bytes_of(t->q, 2) +
                                         b->sequence * bytes_of(t->q, 3));
        for (int64_t i = 0; i < t->head; i++) s->queries[r * t->head + i] = x[i] * scale;
        s->slopes[r] = slope_of(t, head);
    }
}

static const uint16_t *mask_of(const Task *t, const Block *b, int64_t row, int64_t key) {
    return (const uint16_t *)(data_of(t->mask) + token_of(t, row) * bytes_of(t->mask, 1) +
                              head_of(t, b, row) % n_of(t->mask, 2) * bytes_of(t->mask, 2) +
                              b->sequence % n_of(t->mask, 3) * bytes_of(t->mask, 3)) + key;
}

/* Whether a query has the mask of the one before it: that of the same token. */
static bool has_same_mask(const Task *t, const Block *b, int64_t r) {
    return r && n_of(t->mask, 2) == 1 &&
           token_of(t, b->first + r) == token_of(t, b->first + r - 1);
}

/* Whether any query of the block sees any of these keys. */
static bool is_seen(const Task *t, const Block *b, int64_t key) {
    enum { NONE = 0xfc00 }; /* -infinity */
    if (t->mask == NULL) return true;
    const int64_t n = least(TILE, t->keys - key);
    for (int64_t r = 0; r < b->n; r++) {
        if (has_same_mask(t, b, r)) continue;
        const uint16_t *mask = mask_of(t, b, b->first + r, key);
        for (int64_t i = 0; i < n; i++)
            if (mask[i] != NONE) return true;
    }
    return false;
}

static void unpack_tile(const void *tensor, const Block *b, int64_t key, int64_t n, int64_t width,
                        float *out) {
    const int64_t shared = n_of(tensor, 3);
    const char *from = data_of(tensor) + key * bytes_of(tensor, 1) + b->head * bytes_of(tensor, 2) +
                       b->sequence % shared * bytes_of(tensor, 3);
    const int64_t all = padded(width);
    for (int64_t i = 0; i < n; i++) {
        unpack(type_of(tensor), from + i * bytes_of(tensor, 1), width, out + i * all);
        for (int64_t j = width; j < all; j++) out[i * all + j] = 0;
    }
    memset(out + n * all, 0, (TILE - n) * all * 4);
}

/* The scores of a tile, which are in s->scores from the column `at` on: capped, masked. */
static void finish_scores(const Task *t, const Block *b, int64_t key, int64_t at, Scratch *s) {
    const int64_t n = least(TILE, t->keys - key);
    const float cap = t->params.softcap;
    for (int64_t r = 0; r < b->n; r++) {
        float *scores = s->scores + r * CHUNK + at;
        if (cap != 0)
            for (int i = 0; i < TILE; i += LANES) { /* tanh */
                Lanes *x = (Lanes *)(scores + i);
                const Lanes size = (Lanes)((Ints)*x & 0x7fffffff), e = power(-2.0f * size);
                const Lanes value = cap * ((1.0f - e) / (1.0f + e));
                *x = (Lanes)((Ints)value | ((Ints)*x & (int32_t)0x80000000));
            }
        if (t->mask) {
            if (!has_same_mask(t, b, r))
                unpack(F16, (const char *)mask_of(t, b, b->first + r, key), n, s->mask);
            for (int64_t i = 0; i < n; i++) scores[i] += s->slopes[r] * s->mask[i];
        }
        for (int64_t i = n; i < TILE; i++) scores[i] = -INFINITY;
    }
}

/* One chunk for one block: s->part, not yet divided by s->part_total, at a highest score of
   s->part_most. Returns whether any of its queries sees any of its keys. */
static bool compute_chunk(const Task *t, const Block *b, int64_t chunk, Scratch *s) {
    const int64_t start = chunk * CHUNK, tiles = (least(CHUNK, t->keys - start) + TILE - 1) / TILE;
    const int64_t width = padded(t->head), out = padded(t->out);
    bool seen[TILES], any = false;
    for (int64_t n = 0; n < tiles; n++) {
        const int64_t key = start + n * TILE;
        seen[n] = is_seen(t, b, key);
        if (!seen[n]) continue;
        any = true;
        unpack_tile(t->k, b, key, least(TILE, t->keys - key), t->head, s->rows);
        turn(s->rows, width, s->tile);
        product(b->n, TILE, t->head, s->queries, t->head, s->tile, TILE, s->scores + n * TILE, CHUNK,
                false);
        finish_scores(t, b, key, n * TILE, s);
    }
    if (!any) return false;
    for (int64_t r = 0; r < b->n; r++) {
        Lanes highest = (Lanes){0} - INFINITY, total = {0};
        for (int64_t n = 0; n < tiles; n++)
            for (int i = 0; seen[n] && i < TILE; i += LANES) {
                const Lanes x = *(const Lanes *)(s->scores + r * CHUNK + n * TILE + i);
                const Ints larger = x > highest;
                highest = (Lanes)(((Ints)x & larger) | ((Ints)highest & ~larger));
            }
        float most = -INFINITY;
        for (int i = 0; i < LANES; i++) most = highest[i] > most ? highest[i] : most;
        s->part_most[r] = most;
        const float base = most == -INFINITY ? 0 : most; /* no key is seen: all become 0 */
        for (int64_t n = 0; n < tiles; n++)
            for (int i = 0; seen[n] && i < TILE; i += LANES) {
                Lanes *x = (Lanes *)(s->scores + r * CHUNK + n * TILE + i);
                *x = power(*x - base);
                total += *x;
            }
        s->part_total[r] = sum_of(total);
    }
    bool more = false;
    for (int64_t n = 0; n < tiles; n++) {
        if (!seen[n]) continue;
        const int64_t key = start + n * TILE;
        unpack_tile(t->v, b, key, least(TILE, t->keys - key), t->out, s->rows);
        product(b->n, out, TILE, s->scores + n * TILE, CHUNK, s->rows, out, s->part, out, more);
        more = true;
    }
    return true;
}

static float power_of(float x) { return power((Lanes){0} + x)[0]; }

static void begin(const Task *t, const Block *b, Scratch *s) {
    for (int64_t r = 0; r < b->n; r++) s->most[r] = -INFINITY, s->total[r] = 0;
    memset(s->sum, 0, b->n * padded(t->out) * 4);
}

/* Add a chunk. */
static void add(const Task *t, const Block *b, const float *part, const float *most,
                const float *total, Scratch *s) {
    const int64_t out = padded(t->out);
    for (int64_t r = 0; r < b->n; r++) {
        if (most[r] == -INFINITY) continue;
        const float highest = most[r] > s->most[r] ? most[r] : s->most[r];
        const float old = s->total[r] > 0 ? power_of(s->most[r] - highest) : 0;
        const float new = power_of(most[r] - highest);
        for (int64_t i = 0; i < out; i += LANES) {
            Lanes *sum = (Lanes *)(s->sum + r * out + i);
            *sum = *sum * old + *(const Lanes *)(part + r * out + i) * new;
        }
        s->total[r] = s->total[r] * old + total[r] * new;
        s->most[r] = highest;
    }
}

static void end(const Task *t, const Block *b, Scratch *s) {
    for (int64_t r = 0; r < b->n; r++) {
        const int64_t row = b->first + r, head = head_of(t, b, row);
        float scale = 1, total = s->total[r];
        if (t->sinks) { /* one more key, whose value is 0 */
            const float sink = ((const float *)data_of(t->sinks))[head];
            const float highest = sink > s->most[r] ? sink : s->most[r];
            scale = total > 0 ? power_of(s->most[r] - highest) : 0;
            total = total * scale + power_of(sink - highest);
        }
        scale = total > 0 ? scale / total : 0;
        float *y = (float *)((char *)data_of(t->node) + head * bytes_of(t->node, 1) +
                             token_of(t, row) * bytes_of(t->node, 2) + b->sequence * bytes_of(t->node, 3));
        for (int64_t i = 0; i < t->out; i++) y[i] = s->sum[r * padded(t->out) + i] * scale;
    }
}

static void compute_block(const Task *t, int64_t number, Scratch *s) {
    const Block b = block_of(t, number);
    take_queries(t, &b, s);
    begin(t, &b, s);
    for (int64_t chunk = 0; chunk < t->chunks; chunk++)
        if (compute_chunk(t, &b, chunk, s)) add(t, &b, s->part, s->part_most, s->part_total, s);
    end(t, &b, s);
}

/* One chunk of a block, for whoever computes the last one of it. */
static void share_chunk(const Task *t, int64_t number, int64_t chunk, int64_t size, Attention *a,
                        Scratch *s) {
    const Block b = block_of(t, number);
    const int64_t out = padded(t->out);
    float *parts = a->shared + number * t->chunks * size, *mine = parts + chunk * size;
    take_queries(t, &b, s);
    if (compute_chunk(t, &b, chunk, s)) {
        memcpy(mine, s->part, b.n * out * 4);
        memcpy(mine + b.n * out, s->part_most, b.n * 4);
        memcpy(mine + b.n * (out + 1), s->part_total, b.n * 4);
    } else {
        for (int64_t r = 0; r < b.n; r++) mine[b.n * out + r] = -INFINITY;
    }
    if (atomic_fetch_add(&a->left[number], 1) + 1 < t->chunks) return;
    atomic_store(&a->left[number], 0);
    begin(t, &b, s);
    for (int64_t n = 0; n < t->chunks; n++) {
        const float *part = parts + n * size;
        add(t, &b, part, part + b.n * out, part + b.n * (out + 1), s);
    }
    end(t, &b, s);
}

/* What ggml calls, on each of its threads. */
void attention_compute(void *node, int me, int threads, void *state) {
    Attention *a = state;
    if (me < a->threads) {
        const Task t = task_of(node);
        const int64_t blocks = t.blocks * n_of(t.k, 2) * n_of(t.q, 3);
        const int64_t size = least(ROWS, t.rows) * (padded(t.out) + 2);
        const bool shares = blocks < 4 * threads && blocks <= PARTS && t.chunks > 1 &&
                            blocks * t.chunks * size <= SHARED;
        const int64_t works = shares ? blocks * t.chunks : blocks;
        Scratch *s = a->scratch + me;
        for (;;) {
            const int64_t work = atomic_fetch_add(&a->next, 1);
            if (work >= works) break;
            if (shares)
                share_chunk(&t, work / t.chunks, work % t.chunks, size, a, s);
            else /* the last ones, which see most keys, first */
                compute_block(&t, works - 1 - work, s);
        }
    }
    if (atomic_fetch_add(&a->done, 1) + 1 == threads) { /* nobody takes anything any more */
        atomic_store(&a->next, 0);
        atomic_store(&a->done, 0);
    }
}

/* Have a node computed so, if it is attention of a kind that is known. */
void attention_take(void *node, void *state) {
    if (*op_of(node) != op_attention) return;
    const void *q = operand_of(node, Q), *k = operand_of(node, K), *v = operand_of(node, V);
    const void *mask = operand_of(node, MASK), *sinks = operand_of(node, SINKS);
    const Params params = *(const Params *)params_of(node);
    const bool known =
        type_of(q) == F32 && type_of(node) == F32 &&
        is_known(type_of(k), n_of(k, 0)) && is_known(type_of(v), n_of(v, 0)) &&
        n_of(k, 0) <= HEAD && n_of(v, 0) <= HEAD && n_of(k, 2) == n_of(v, 2) &&
        n_of(q, 2) % n_of(k, 2) == 0 && n_of(k, 3) == n_of(q, 3) &&
        n_of(v, 3) == n_of(q, 3) && (mask == NULL || type_of(mask) == F16) &&
        (sinks == NULL || type_of(sinks) == F32);
    if (!known) return;
    /* What ggml wanted stays, behind what is ours. */
    memcpy(params_of(node) + PARAMS - sizeof params, &params, sizeof params);
    compute_with(node, attention_compute, state);
}

void attention_start(int32_t attention) { op_attention = attention; }

/* Bytes of what threads share, and of what each of them needs. */
int64_t attention_size(void) { return (sizeof(Attention) + 63) / 64 * 64; }
int64_t attention_scratch(void) { return (sizeof(Scratch) + 63) / 64 * 64; }

void attention_init(Attention *a, int64_t threads, void *scratch, float *shared) {
    memset(a, 0, sizeof *a);
    a->threads = threads;
    a->scratch = scratch;
    a->shared = shared;
}

int64_t attention_shared(void) { return SHARED; }

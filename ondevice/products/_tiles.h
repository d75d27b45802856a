/* Products of a matrix of weights with columns of activations, in whatever form the weights lie: a
   kind says how they are unpacked.

   A tile of rows is unpacked: four weights of each row after the other, the rows side by side, so
   that a lane of a vector belongs to a row. Activations are rounded to 8 bits, as ggml does: those
   of a block of weights share a scale. The integers of a block are multiplied and summed exactly,
   and its sum is added to the row's in floats, block after block. So what a row and a column come
   to does not depend on how many there are, on threads, or on the width of vectors. */

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_tensor.h"

enum { SIGNED = 0, MOVED = -1 }; /* limits of `dots` */
#define WHOLE 12582912.0f /* 1.5 * 2^23: to add an integer to its bits adds it to the float */

#if defined(PRODUCTS_PLAIN)
#include "_products_plain.h"
#elif defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include "_products_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "_products_avx2.h"
#elif defined(__SSSE3__)
#include "_products_ssse3.h"
#elif defined(__aarch64__)
#include "_products_neon.h"
#else
#include "_products_plain.h"
#endif

/* The header above says, of vectors that have LANES lanes of 32 bits:
     Words, Ints, Floats                 the same vector as uint32, int32 and float
     VECTORS                             of a tile of rows
     UNSIGNED_BYTES                      1: `dots` wants weights of 8 bits moved up by 128, or with
                                         MOVED activations
     PAIRED                              1: `dots` multiplies the sums of the first and of the last
                                         two of 4 bytes with a half each of `scales`
     Ints ints(int32_t), Floats floats(float)     in all lanes
     quads(rows, at, out[4])             of LANES rows, the four words that lie there
     dots(limit, chunks, n, w, x, x_stride, scales, sums[n][VECTORS])
                                         adds, for each column, scales * (sums over 4 bytes); a lane
                                         of `scales` is what scale_of makes; weights have
                                         7, 6, 5, 4 bits with limit 1, 2, 4, 8, or with SIGNED 8;
                                         without scales and not PAIRED, MOVED are 8, too
     Words spread(Words, byte)           the upper half of that byte of each lane, a bit to each of
                                         four bytes, there as 16
     Ints scale_of(Words, byte)          that signed byte of each lane, as `dots` wants it
     Ints pair_of(Words, byte, up)       that signed byte and the next one, as halves, moved up
     Ints pairs(Ints sums, Ints a, Ints b)    with products of the two halves added
     Floats halves(Words)                float16 in the lower half of each lane
     Words looked_up(Words, const int8_t table[16])       for each byte, what is there
     Words gathered(codebook, numbers)   for each lane, the word of that number
     gathered_pairs(codebook, numbers, out[2])            both words of an entry
     Floats to_floats(Ints), Floats fused(a, b, c)        a * b + c
   and with WIDE_VECTORS, of which each 32 bytes belong to a row, one `stride` after the other:
     Words from_rows(from, stride, n)    of each row, n words
     Words nibbles_of(from, stride, n)   of n bytes of each row, the nibbles as halves
     Words for_rows(from)                32 bytes, the same for all rows
     Ints byte_pairs(Words, Words)       products of unsigned and signed bytes, two summed to a half */

enum {
    TILE = VECTORS * LANES,      /* rows */
    CHUNK = 4 * TILE,            /* bytes: 4 weights of each row */
    SPAN = 256, BLOCK = 32,      /* weights */
    STRETCH = 1024,              /* columns of weights that are unpacked at once */
    FEW = 8,                     /* columns of activations, beside which unpacking counts */
    SOME = 4,                    /* columns of activations whose sums are in registers */
    BATCH = 512,                 /* columns of activations, as many as come mostly */
    PASS = 256,                  /* at most rounded at once, by each thread */
    LEAST_APART = 32,            /* columns for each thread, to share out these and not rows */
    SHARES = 4                   /* into which a thread's part is cut, for when one is slower */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A tile of a stretch. Blocks of 32 have a scale each, and some types a number that is added. A
   span of 256 has a scale, and integer scales of its groups. */
typedef struct {
    uint8_t w[STRETCH * TILE];
    int32_t scales[STRETCH / 16][TILE]; /* of groups, as scale_of makes them */
    int32_t lows[STRETCH / 32][TILE];   /* of two groups: what is taken off, two halves */
    float d[STRETCH / BLOCK][TILE], m[STRETCH / BLOCK][TILE];
    const uint8_t *next; /* of the tile after it, what is to be fetched next */
    const void *source;  /* what else a kind wants to know */
    int64_t row, level;
} Tile;

/* Columns that are rounded; `side` has what a type needs of the sums of a block. */
typedef struct {
    const int8_t *q;
    const float *scales;
    const int32_t *side;
    const float *const *x; /* as they came */
    int64_t q_stride, side_stride;
} Columns;

#define EACH(v, n) UNROLLED for (int v = 0; v < (n); v++)
#define PUT(chunk, v, value) \
    do { \
        const Words put = (Words)(value); \
        memcpy(t->w + (chunk) * CHUNK + (v) * 4 * LANES, &put, sizeof put); \
    } while (0)
#define KEEP(array, v, value) \
    do { \
        __typeof__(value) kept = (value); \
        memcpy((array) + (v) * LANES, &kept, sizeof kept); \
    } while (0)

/* Has some of the next tile fetched, a line after the other: of rows that are read side by side,
   the processor does not see by itself what comes. */
INLINE void fetch_ahead(const int bytes, Tile *t) {
    UNROLLED for (int i = 0; i < bytes; i += 64) __builtin_prefetch(t->next + i, 0, 2);
    t->next += bytes;
}

/* What is summed so far: before the first block, nothing. */
INLINE void get_sums(int64_t before, const int n, const float *from, Floats sums[SOME][VECTORS]) {
    EACH(c, n) EACH(v, VECTORS)
        if (before) memcpy(&sums[c][v], from + c * TILE + v * LANES, sizeof sums[c][v]);
        else sums[c][v] = floats(0);
}
INLINE void put_sums(const int n, Floats sums[SOME][VECTORS], float *to) {
    EACH(c, n) EACH(v, VECTORS)
        memcpy(to + c * TILE + v * LANES, &sums[c][v], sizeof sums[c][v]);
}
INLINE Floats kept_floats(const float *from) {
    Floats value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE Ints kept_ints(const int32_t *from) {
    Ints value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE float as_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

typedef void Multiply(int n, const Tile *t, int64_t at, int64_t blocks, const Columns *x,
                      int64_t first, float *to);
#define FOR_SOME(name, call) \
    static void name(int n, const Tile *t, int64_t at, int64_t blocks, const Columns *x, \
                     int64_t first, float *to) { \
        switch (n) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 3: call(3); break; \
        default: call(4); \
        } \
    }
/* What is kept of the sums of activations: nothing; -offset times the sum of a block; that sum
   times the scale; or the sums of groups of a span, two in a word. */
enum { RAW, OFFSET, TIMES_SCALE, GROUPS };

typedef struct Matrix Matrix;

typedef struct {
    int block, side, detail; /* detail: the offset, or a group's weights */
    /* Of n columns, puts one that is rounded into the order in which it is multiplied; or 0. */
    void (*arrange)(int8_t *q, float *scales, int32_t *side, int64_t columns, int64_t n);
    /* Rows times a single column, if that is another way to the same sums; or 0. */
    void (*multiply_alone)(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y);
    /* Says where the rows of a tile lie from this one on, the last ones as often as need be; gives
       the row of the next tile. */
    int64_t (*find)(const Matrix *m, int64_t row, const uint8_t **rows, Tile *t);
    void (*unpack)(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t);
    Multiply *multiply;
} Kind;

/* Some rows of a matrix. What `source` is, its kind knows. */
struct Matrix {
    const Kind *kind;
    const void *source;
    int64_t columns, begin, end; /* end: of the rows that are wanted */
    int64_t stride;              /* bytes or rows, as the kind wants */
};

/* n activations as integers; their scale. */
INLINE float round_some(const float *x, const int n, int8_t *out) {
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, 4);
    const float inverse = largest > 0 ? 127 / largest : 0;
    for (int i = 0; i < n; i++) { /* so that the integer is in the lowest bits */
        const float moved = x[i] * inverse + WHOLE;
        int32_t bits;
        memcpy(&bits, &moved, 4);
        out[i] = (int8_t)bits;
    }
    return largest / 127;
}

INLINE int32_t sum_of(const int8_t *q, const int n) {
    int32_t sum = 0;
    if (n > 16) {
        for (int i = 0; i < n; i++) sum += q[i];
        return sum;
    }
    /* Compilers use no vectors for so few: bytes that are moved up by 128, in four halves. */
    const uint64_t bytes = 0x00ff00ff00ff00ffu;
    uint64_t sums = 0;
    for (int i = 0; i < n; i += 8) {
        uint64_t some;
        memcpy(&some, q + i, 8);
        some ^= 0x8080808080808080u;
        sums += (some & bytes) + (some >> 8 & bytes);
    }
    return (int32_t)(sums * 0x0001000100010001u >> 48) - 128 * n;
}

INLINE void round_blocks(const int block, const int side, const int detail, const float *x,
                         int64_t columns, int8_t *q, float *scales, int32_t *sides) {
    for (int64_t i = 0; i < columns; i += block) {
        const int64_t b = i / BLOCK;
        scales[b] = round_some(x + i, block, q + i);
        if (side == OFFSET) sides[b] = -detail * sum_of(q + i, BLOCK);
        else if (side == TIMES_SCALE) {
            const float sum = (float)sum_of(q + i, BLOCK) * scales[b];
            memcpy(sides + b, &sum, 4);
        } else {
            int16_t sums[SPAN / 16];
            for (int g = 0; g < block / detail; g++)
                sums[g] = (int16_t)sum_of(q + i + g * detail, detail);
            memcpy(sides + b, sums, (size_t)(block / detail) * 2);
        }
    }
}

static void round_column(const Kind *kind, const float *x, int64_t columns, int8_t *q,
                         float *scales, int32_t *sides) {
    /* Compiled for each case: the loops are short. */
    if (kind->side == OFFSET)
        round_blocks(BLOCK, OFFSET, kind->detail, x, columns, q, scales, sides);
    else if (kind->side == TIMES_SCALE)
        round_blocks(BLOCK, TIMES_SCALE, 0, x, columns, q, scales, sides);
    else if (kind->block == BLOCK)
        round_blocks(BLOCK, GROUPS, 16, x, columns, q, scales, sides);
    else if (kind->detail == 16)
        round_blocks(SPAN, GROUPS, 16, x, columns, q, scales, sides);
    else round_blocks(SPAN, GROUPS, 32, x, columns, q, scales, sides);
}

/* ------------------------------------------------------------------------------ sharing */

/* What all threads share. */
typedef struct {
    void *room;
    uint8_t *scratch;      /* in it: scratch_bytes(columns) for each thread */
    int64_t columns;       /* for which there is scratch */
    int64_t threads;       /* that there is scratch for; others do nothing */
    int64_t pass;          /* columns of activations that a thread rounds at once */
    _Atomic int64_t next;  /* the first share that no thread has taken */
    _Atomic int64_t done;  /* threads that found none left */
} Products;

typedef struct {
    Tile *tile;
    float *sums; /* [pass][TILE] */
    int8_t *q;
    float *scales;
    int32_t *side;
    const float *x[PASS];
    float *y[PASS];
} Scratch;

static int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* Of a thread, a multiple of 64. */
static int64_t scratch_bytes(const Products *p, int64_t columns) {
    return lines(sizeof(Tile)) + lines(p->pass * TILE * 4) + lines(p->pass * columns) +
           2 * lines(p->pass * (columns / BLOCK) * 4);
}

bool products_make_room(Products *p, int64_t columns) {
    if (columns <= p->columns) return true;
    void *room = malloc(64 + (size_t)(p->threads * scratch_bytes(p, columns)));
    if (!room) return false;
    free(p->room);
    p->room = room;
    p->scratch = (uint8_t *)(((uintptr_t)room + 63) & ~(uintptr_t)63);
    p->columns = columns;
    return true;
}

static void scratch_of(const Products *p, int thread, Scratch *s) {
    uint8_t *at = p->scratch + thread * scratch_bytes(p, p->columns);
    s->tile = (Tile *)at;
    s->sums = (float *)(at += lines(sizeof(Tile)));
    s->q = (int8_t *)(at += lines(p->pass * TILE * 4));
    s->scales = (float *)(at += lines(p->pass * p->columns));
    s->side = (int32_t *)(at + lines(p->pass * (p->columns / BLOCK) * 4));
}

static void round_columns(const Matrix *m, Scratch *s, int64_t n) {
    if (m->kind->side == RAW) return;
    for (int64_t c = 0; c < n; c++) {
        int8_t *q = s->q + c * m->columns;
        float *scales = s->scales + c * (m->columns / BLOCK);
        int32_t *side = s->side + c * (m->columns / BLOCK);
        round_column(m->kind, s->x[c], m->columns, q, scales, side);
        if (m->kind->arrange) m->kind->arrange(q, scales, side, m->columns, n);
    }
}

/* These rows times n columns that have been rounded. */
static void multiply_rows(const Matrix *m, const Scratch *s, int64_t begin, int64_t end,
                          int64_t n) {
    const Kind *kind = m->kind;
    const Columns x = {s->q, s->scales, s->side, s->x, m->columns, m->columns / BLOCK};
    if (n == 1 && kind->multiply_alone) {
        kind->multiply_alone(m, begin, end, &x, s->y[0]);
        return;
    }
    const int64_t blocks = m->columns / kind->block;
    /* Of few columns, weights must come fast: less is unpacked at once, so that it overlaps with
       the fetching. Floats are summed in stretches of one length. */
    const int few = kind->side == RAW || n <= FEW;
    const int64_t stretch = (few ? SPAN : STRETCH) / kind->block;
    for (int64_t row = begin, next; row < end; row = next) {
        const uint8_t *rows[TILE];
        next = least(kind->find(m, row, rows, s->tile), end);
        for (int64_t at = 0; at < blocks; at += stretch) {
            const int64_t n_blocks = least(blocks - at, stretch);
            kind->unpack(rows, at, n_blocks, s->tile);
            for (int64_t c = 0; c < n; c += SOME) {
                const int some = (int)least(n - c, SOME);
                if (!at) /* so that it is there when results are written */
                    for (int i = 0; i < some; i++)
                        for (int r = 0; r < TILE; r += 16)
                            __builtin_prefetch(s->y[c + i] + row + r, 1);
                kind->multiply(some, s->tile, at, n_blocks, &x, c, s->sums + c * TILE);
            }
        }
        for (int64_t c = 0; c < n; c++)
            if (next - row == TILE) memcpy(s->y[c] + row, s->sums + c * TILE, TILE * 4);
            else memcpy(s->y[c] + row, s->sums + c * TILE, (size_t)(next - row) * 4);
    }
}

/* Rows of which a thread takes so many at a time. */
static int64_t share_of(int64_t rows, int threads) {
    return (rows / (threads * SHARES) / TILE + 1) * TILE;
}

/* The shares of all jobs before this one, and the share that this thread has taken. */
typedef struct {
    int64_t before, mine;
} Place;

/* A thread's part in a matrix times n columns, at most a pass, whose addresses are in `s`. */
static void take_rows(Products *p, const Matrix *m, Scratch *s, int64_t n, Place *place,
                      int threads) {
    const int64_t rows = m->end > m->begin ? m->end - m->begin : 0;
    const int64_t share = share_of(rows, threads), shares = (rows + share - 1) / share;
    int rounded = 0;
    for (; place->mine < place->before + shares; place->mine = atomic_fetch_add(&p->next, 1)) {
        if (!rounded++) round_columns(m, s, n);
        const int64_t row = m->begin + (place->mine - place->before) * share;
        multiply_rows(m, s, row, least(row + share, m->end), n);
    }
    place->before += shares;
}

/* --------------------------------------------------------------------- nodes of a graph */

/* What a node multiplies with. */
typedef struct {
    const void *source;
    Matrix (*beside)(const void *node, const void *source, int64_t i2, int64_t i3);
    Matrix (*expert)(const void *node, const void *source, int64_t number);
    int64_t n_experts;
} Weights;

static void multiply(Products *p, const void *node, const Weights *weights, Scratch *s, int me,
                     int threads) {
    const void *x = operand_of(node, 1);
    const int64_t n = n_of(x, 1), by_columns = n >= LEAST_APART * threads;
    const int64_t first = by_columns ? n * me / threads : 0;
    const int64_t last = by_columns ? n * (me + 1) / threads : n;
    Place place = {0, by_columns ? 0 : atomic_fetch_add(&p->next, 1)};
    for (int64_t of = 0; of < n_of(x, 2) * n_of(x, 3); of++) { /* matrices beside each other */
        const int64_t i2 = of % n_of(x, 2), i3 = of / n_of(x, 2);
        const Matrix m = weights->beside(node, weights->source, i2, i3);
        const uint8_t *from = data_of(x) + i2 * bytes_of(x, 2) + i3 * bytes_of(x, 3);
        uint8_t *to = data_of(node) + i2 * bytes_of(node, 2) + i3 * bytes_of(node, 3);
        for (int64_t at = first; at < last; at += p->pass) {
            const int64_t some = least(last - at, p->pass);
            for (int64_t c = 0; c < some; c++) {
                s->x[c] = (const float *)(from + (at + c) * bytes_of(x, 1));
                s->y[c] = (float *)(to + (at + c) * bytes_of(node, 1));
            }
            if (by_columns) {
                round_columns(&m, s, some);
                multiply_rows(&m, s, m.begin, m.end, some);
            } else take_rows(p, &m, s, some, &place, threads);
        }
    }
}

/* Each token has slots, which name the experts that it wants. */
static void multiply_experts(Products *p, const void *node, const Weights *weights, Scratch *s,
                             int threads) {
    const void *x = operand_of(node, 1), *ids = operand_of(node, 2);
    const int64_t n_slots = n_of(ids, 0), n_pairs = n_slots * n_of(ids, 1);
    const int64_t x_slots = n_of(x, 1);
    Place place = {0, atomic_fetch_add(&p->next, 1)};
    for (int64_t expert = 0; expert < weights->n_experts; expert++) {
        const Matrix m = weights->expert(node, weights->source, expert);
        for (int64_t pair = 0, n; pair < n_pairs;) {
            for (n = 0; pair < n_pairs && n < p->pass; pair++) {
                const int64_t token = pair / n_slots, slot = pair % n_slots;
                if (*(int32_t *)(data_of(ids) + token * bytes_of(ids, 1) +
                                 slot * bytes_of(ids, 0)) != expert)
                    continue;
                s->x[n] = (const float *)(data_of(x) + token * bytes_of(x, 2) +
                                          slot % x_slots * bytes_of(x, 1));
                s->y[n++] = (float *)(data_of(node) + token * bytes_of(node, 2) +
                                      slot * bytes_of(node, 1));
            }
            if (n) take_rows(p, &m, s, n, &place, threads);
        }
    }
}

/* The part of thread `me` in a node. */
static void compute(Products *p, const void *node, const Weights *weights, int me, int threads) {
    threads = (int)least(threads, p->threads);
    if (me >= threads) return;
    Scratch s;
    scratch_of(p, me, &s);
    if (operand_of(node, 2)) multiply_experts(p, node, weights, &s, threads);
    else multiply(p, node, weights, &s, me, threads);
    if (atomic_fetch_add(&p->done, 1) + 1 == threads) { /* all wait for all before the next one */
        p->next = 0;
        p->done = 0;
    }
}

Products *products_new(int64_t threads) {
    Products *p = calloc(1, sizeof *p);
    if (!p) return 0;
    p->threads = threads;
    /* What threads share out by columns is rounded at once; more threads take no more scratch. */
    const int64_t part = (BATCH + threads - 1) / threads;
    p->pass = least(PASS, part < LEAST_APART ? LEAST_APART : part);
    return p;
}

void products_free(Products *p) {
    free(p->room);
    free(p);
}

/* Attention on another processor: queries, keys, values and mask from standard input. */

#include "_attention.c"

#include "arm_main.h"

/* Of so many heads, each with rows of so many bytes. */
static Tensor read_tensor(int32_t type, int64_t columns, int64_t rows, int64_t heads, size_t row) {
    Tensor t = {.type = type, .ne = {columns, rows, heads, 1},
                .nb = {1, row, row * rows, row * rows * heads}};
    t.data = read_bytes(t.nb[3]);
    return t;
}

int main(int argc, char **argv) { /* tokens, keys, heads, shared, size, out, type, bytes of rows */
    int64_t n[9];
    if (argc != 10) return 1;
    for (int i = 0; i < 9; i++) n[i] = atoi(argv[i + 1]);
    const int64_t tokens = n[0], keys = n[1], heads = n[2], shared = n[3], size = n[4], out = n[5];
    start_tensors(2);
    Tensor q = read_tensor(F32, size, tokens, heads, 4 * size);
    Tensor k = read_tensor(n[6], size, keys, shared, n[7]);
    Tensor v = read_tensor(n[6], out, keys, shared, n[8]);
    Tensor mask = read_tensor(F16, keys, tokens, 1, 2 * keys);
    Tensor y = {.op = 1, .ne = {out, heads, tokens, 1}, .src = {&q, &k, &v, &mask}};
    for (int i = 0; i < 4; i++) y.nb[i] = i ? y.nb[i - 1] * y.ne[i - 1] : 4;
    const Params params = {.scale = 1 / sqrtf(size)};
    memcpy(y.params, &params, sizeof params);
    y.data = malloc(4 * tokens * heads * out);
    void *state = malloc(attention_size());
    attention_init(state, 1, malloc(attention_scratch()), malloc(4 * attention_shared()));
    attention_start(1);
    attention_take(&y, state);
    if (y.op != 2) return 1;
    attention_compute(&y, 0, 1, state);
    return fwrite(y.data, 4, tokens * heads * out, stdout) != (size_t)(tokens * heads * out);
}

/* A product on another processor: weights and activations from standard input. */

#include "_products.c"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    int type;
    int64_t ne[4];
    size_t nb[4];
    void *src[3], *data;
} Tensor; /* without what products do not look at */

static void *read_bytes(size_t n) {
    void *bytes = malloc(n);
    if (!bytes || fread(bytes, 1, n, stdin) != n) exit(1);
    return bytes;
}

int main(int argc, char **argv) { /* type, rows, columns, n, bytes of a row */
    (void)argc;
    const int64_t rows = atoi(argv[2]), columns = atoi(argv[3]), n = atoi(argv[4]);
    const size_t row = (size_t)atoi(argv[5]);
    const TensorLayout where = {.type = offsetof(Tensor, type), .ne = offsetof(Tensor, ne),
                                .nb = offsetof(Tensor, nb), .src = offsetof(Tensor, src),
                                .data = offsetof(Tensor, data)};
    tensor_start(&where);
    Tensor w = {atoi(argv[1]), {columns, rows, 1, 1}, {1, row, row * rows, row * rows}, {0}, 0};
    Tensor x = {0, {columns, n, 1, 1}, {4, 4 * columns, 0, 0}, {0}, 0};
    Tensor y = {0, {rows, n, 1, 1}, {4, 4 * rows, 0, 0}, {&w, &x}, 0};
    w.data = read_bytes(row * rows);
    x.data = read_bytes(4 * columns * n);
    y.data = malloc(4 * rows * n);
    Products p = {aligned_alloc(64, products_scratch(columns)), columns, 1, 0, 0};
    products_node(&y, 0, 1, &p);
    return fwrite(y.data, 4, rows * n, stdout) != (size_t)(rows * n);
}

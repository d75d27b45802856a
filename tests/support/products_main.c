/* A product on another processor: codebooks, weights and activations from standard input. */

#include "_products.c"

#include "arm_main.h"

int main(int argc, char **argv) { /* type, rows, columns, n, bytes of a row */
    (void)argc;
    const int64_t rows = atoi(argv[2]), columns = atoi(argv[3]), n = atoi(argv[4]);
    const size_t row = (size_t)atoi(argv[5]);
    start_tensors(0);
    Tensor w = {.type = atoi(argv[1]), .ne = {columns, rows, 1, 1},
                .nb = {1, row, row * rows, row * rows}};
    Tensor x = {.ne = {columns, n, 1, 1}, .nb = {4, 4 * columns, 0, 0}};
    Tensor y = {.op = 1, .ne = {rows, n, 1, 1}, .nb = {4, 4 * rows, 0, 0}, .src = {&w, &x}};
    read_to(products_iq2_xxs, sizeof products_iq2_xxs);
    read_to(products_iq2_xs, sizeof products_iq2_xs);
    read_to(products_iq2_s, sizeof products_iq2_s);
    read_to(products_iq3_xxs, sizeof products_iq3_xxs);
    read_to(products_iq3_s, sizeof products_iq3_s);
    read_to(products_iq1, sizeof products_iq1);
    w.data = read_bytes(row * rows);
    x.data = read_bytes(4 * columns * n);
    y.data = malloc(4 * rows * n);
    Products *products = products_new(1);
    products_start(1, 2);
    products_take(&y, products);
    products_node(&y, 0, 1, products);
    return fwrite(y.data, 4, rows * n, stdout) != (size_t)(rows * n);
}

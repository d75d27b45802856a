/* A product with planes on another processor: what they are and activations from standard input. */

#include "_planes.c"

#include "arm_main.h"

int main(int argc, char **argv) { /* rows, columns, n, planes */
    (void)argc;
    const int64_t rows = atoi(argv[1]), columns = atoi(argv[2]), n = atoi(argv[3]);
    const int32_t level = atoi(argv[4]);
    start_tensors(0);
    const uint8_t *parts[PARTS];
    parts[SCALES] = read_bytes((size_t)(rows * spans_of(columns) * 2));
    parts[NIBBLES] = read_bytes((size_t)(rows * columns / WORD));
    for (int p = 0; p < PLANES; p++)
        parts[FIRST_PLANE + p] = read_bytes((size_t)(rows * columns / 8));
    Planes planes = {rows, columns, rows, parts, &level, products_new(1)};
    products_make_room(planes.products, columns);
    Tensor x = {.ne = {columns, n, 1, 1}, .nb = {4, 4 * columns, 0, 0}};
    Tensor y = {.ne = {rows, n, 1, 1}, .nb = {4, 4 * rows, 0, 0}, .src = {0, &x}};
    x.data = read_bytes(4 * columns * n);
    y.data = malloc(4 * rows * n);
    planes_multiply_node(&y, 0, 1, &planes);
    return fwrite(y.data, 4, rows * n, stdout) != (size_t)(rows * n);
}

/* ggml's tensors. Where the fields of its struct are, Python has proved and tells: see _ggml.py. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__ /* unrolled, so that what loops index stays in registers */
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

typedef struct {
    int64_t type, ne, nb, op, params, flags, src, view_src, data; /* bytes from its start */
    int64_t custom; /* the operation that is computed by a function of ours */
} TensorLayout;

static TensorLayout tensor_layout;

void tensor_start(const TensorLayout *of_ggml) { tensor_layout = *of_ggml; }

static inline void *field(const void *tensor, int64_t offset) { return (char *)tensor + offset; }
static inline int32_t type_of(const void *tensor) {
    return *(int32_t *)field(tensor, tensor_layout.type);
}
static inline int32_t flags_of(const void *tensor) {
    return *(int32_t *)field(tensor, tensor_layout.flags);
}
static inline const void *view_of(const void *tensor) {
    return *(void **)field(tensor, tensor_layout.view_src);
}
static inline int32_t *op_of(void *node) { return field(node, tensor_layout.op); }
static inline char *params_of(const void *node) { return field(node, tensor_layout.params); }
static inline void *data_of(const void *tensor) {
    return *(void **)field(tensor, tensor_layout.data);
}
static inline const void *operand_of(const void *node, int i) {
    return ((void **)field(node, tensor_layout.src))[i];
}
static inline int64_t n_of(const void *tensor, int i) {
    return ((int64_t *)field(tensor, tensor_layout.ne))[i];
}
/* From one element to the next along a dimension. */
static inline int64_t bytes_of(const void *tensor, int i) {
    return (int64_t)((size_t *)field(tensor, tensor_layout.nb))[i];
}

/* Has all threads of ggml call this for a node, as ggml_map_custom does. */
static inline void compute_with(void *node, void (*function)(void *, int, int, void *),
                                void *state) {
    struct {
        void (*function)(void *, int, int, void *);
        int32_t tasks;
        void *state;
    } custom = {function, -1, state};
    memcpy(params_of(node), &custom, sizeof custom);
    *op_of(node) = (int32_t)tensor_layout.custom;
}

/* What llama.cpp calls at each node of a graph, a thousand times for each token: where nothing is
   to be done that needs Python, Python is not asked. */

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void (*take)(void *node, void *state);
    void *state;
} Handler;

typedef struct {
    int64_t tag_offset; /* where a node has its tag */
    uint64_t plain;     /* the tag of nodes where nothing happens */
    bool (*slow)(void *node, bool ask, void *state);
    int64_t n_handlers; /* that inspect new nodes; -1: Python does */
    Handler handlers[4];
} Hook;

bool hook_on_node(void *node, bool ask, void *state) {
    const Hook *hook = state;
    uint64_t *tag = (uint64_t *)((char *)node + hook->tag_offset);
    if (*tag < hook->plain && ask && hook->n_handlers >= 0) {
        for (int64_t i = 0; i < hook->n_handlers; i++)
            hook->handlers[i].take(node, hook->handlers[i].state);
        *tag = hook->plain;
    }
    return *tag == hook->plain ? !ask : hook->slow(node, ask, 0);
}

/* A handler that does nothing. */
void hook_pass(void *node, void *state) {
    (void)node;
    (void)state;
}

/* A handler that counts the operations that it does not know. */
typedef struct {
    int64_t op_offset, unknown;
    uint8_t known[256];
} OperationCount;

void hook_count(void *node, void *state) {
    OperationCount *count = state;
    const int32_t op = *(const int32_t *)((const char *)node + count->op_offset);
    count->unknown += op < 0 || op > 255 || !count->known[op];
}

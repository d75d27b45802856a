/* What llama.cpp calls at each node of a graph, a thousand times for each token: where nothing is
   to be done that needs Python, Python is not asked. */

#include <stdbool.h>

#include "_tensor.h"

#define MAX_SRC 10
#define FLAG_INPUT 1

typedef struct {
    void (*take)(void *node, void *state);
    void *state;
} Handler;

typedef struct {
    int64_t tag_offset; /* where a node has its tag */
    uint64_t plain;     /* the tag of nodes where nothing happens */
    bool (*slow)(void *node, bool ask, void *state);
    int64_t n_handlers; /* that inspect new nodes; -1: Python does */
    int64_t at_weights; /* whether Python inspects those that read weights, or what is cached */
    void *last;         /* node that was inspected, of this pass */
    Handler handlers[4];
} Hook;

/* Whether a node reads what stays from pass to pass: weights, or what is cached. */
static bool reads_kept(const void *node) {
    for (int i = 0; i < MAX_SRC; i++) {
        const void *operand = operand_of(node, i);
        const void *root = operand && view_of(operand) ? view_of(operand) : operand;
        if (root && *op_of((void *)root) == 0 && !(flags_of(root) & FLAG_INPUT))
            return true;
    }
    return false;
}

bool hook_on_node(void *node, bool ask, void *state) {
    Hook *hook = state;
    uint64_t *tag = (uint64_t *)((char *)node + hook->tag_offset);
    if (*tag < hook->plain && ask && hook->n_handlers >= 0 &&
        !(hook->at_weights && reads_kept(node))) {
        for (int64_t i = 0; i < hook->n_handlers; i++)
            hook->handlers[i].take(node, hook->handlers[i].state);
        *tag = hook->plain;
        hook->last = node;
        if (hook->at_weights) /* something may have to be done before the next node */
            return true;
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
    int64_t unknown;
    uint8_t known[256];
} OperationCount;

void hook_count(void *node, void *state) {
    OperationCount *count = state;
    const int32_t op = *op_of(node);
    count->unknown += op < 0 || op > 255 || !count->known[op];
}

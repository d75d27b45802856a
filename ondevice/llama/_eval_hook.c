/* What llama.cpp calls at each node of a graph, a thousand times for each token: where nothing is
   to be done, Python is not asked. */

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t tag_offset; /* where a node has its tag */
    uint64_t plain;     /* the tag of nodes where nothing happens */
    bool (*slow)(void *node, bool ask, void *state);
} Hook;

bool hook_on_node(void *node, bool ask, void *state) {
    const Hook *hook = state;
    const uint64_t tag = *(const uint64_t *)((const char *)node + hook->tag_offset);
    return tag == hook->plain ? !ask : hook->slow(node, ask, 0);
}

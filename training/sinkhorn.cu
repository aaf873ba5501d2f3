/* sinkhorn.c for a GPU: one thread for each 4x4 matrix, the same steps in the same order.
 *
 * In and out are device pointers; the work is queued on `stream`. Returns a cudaError_t.
 */
#include <cuda_runtime.h>
#include <stdint.h>

#define CELLS 16
#define MOST_STEPS 64
#define THREADS 64

/* Step 0 and every even step is over columns, odd steps over rows. */
__device__ static int cell(int rows, int a, int k) { return rows ? a * 4 + k : k * 4 + a; }

__device__ static void normalise(const float *in, float *out, float *inverse, int rows, float eps) {
    for (int a = 0; a < 4; a++) {
        float sum = eps;
        for (int k = 0; k < 4; k++) sum += in[cell(rows, a, k)];
        inverse[a] = 1.0f / sum;
        for (int k = 0; k < 4; k++) out[cell(rows, a, k)] = in[cell(rows, a, k)] * inverse[a];
    }
}

/* d in = (d out - sum(d out * out)) / sum, in place. */
__device__ static void normalise_backward(float *grad, const float *out, const float *inverse,
                                          int rows) {
    for (int a = 0; a < 4; a++) {
        float dot = 0.0f;
        for (int k = 0; k < 4; k++) dot += grad[cell(rows, a, k)] * out[cell(rows, a, k)];
        for (int k = 0; k < 4; k++)
            grad[cell(rows, a, k)] = (grad[cell(rows, a, k)] - dot) * inverse[a];
    }
}

/* Row softmax of `in`. */
__device__ static void softmax(const float *in, float *x) {
    for (int a = 0; a < 4; a++) {
        const float *row = in + 4 * a;
        float most = fmaxf(fmaxf(row[0], row[1]), fmaxf(row[2], row[3])), sum = 0.0f;
        for (int k = 0; k < 4; k++) sum += x[4 * a + k] = expf(row[k] - most);
        for (int k = 0; k < 4; k++) x[4 * a + k] /= sum;
    }
}

__global__ static void forward(const float *in, float *out, int64_t count, int steps, float eps) {
    int64_t t = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (t >= count) return;
    float x[CELLS], inverse[4];
    softmax(in + t * CELLS, x);
    for (int c = 0; c < CELLS; c++) x[c] += eps;
    normalise(x, x, inverse, 0, eps);
    for (int step = 1; step < steps; step += 2) {
        normalise(x, x, inverse, 1, eps);
        normalise(x, x, inverse, 0, eps);
    }
    for (int c = 0; c < CELLS; c++) out[t * CELLS + c] = x[c];
}

__global__ static void backward(const float *in, const float *grad_out, float *grad_in,
                                int64_t count, int steps, float eps) {
    int64_t t = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (t >= count) return;
    float soft[CELLS], grad[CELLS], states[MOST_STEPS][CELLS], inverses[MOST_STEPS - 1][4];
    softmax(in + t * CELLS, soft);
    for (int c = 0; c < CELLS; c++) states[0][c] = soft[c] + eps;
    for (int step = 0; step < steps; step++)
        normalise(states[step], states[step + 1], inverses[step], step & 1, eps);
    for (int c = 0; c < CELLS; c++) grad[c] = grad_out[t * CELLS + c];
    for (int step = steps - 1; step >= 0; step--)
        normalise_backward(grad, states[step + 1], inverses[step], step & 1);
    for (int a = 0; a < 4; a++) {
        float dot = 0.0f;
        for (int k = 0; k < 4; k++) dot += grad[4 * a + k] * soft[4 * a + k];
        for (int k = 0; k < 4; k++)
            grad_in[t * CELLS + 4 * a + k] = (grad[4 * a + k] - dot) * soft[4 * a + k];
    }
}

static unsigned blocks(int64_t count) { return (unsigned)((count + THREADS - 1) / THREADS); }

extern "C" int sinkhorn_cuda_forward(const float *in, float *out, int64_t count, int iterations,
                                     float eps, cudaStream_t stream) {
    forward<<<blocks(count), THREADS, 0, stream>>>(in, out, count, 2 * iterations - 1, eps);
    return cudaGetLastError();
}

extern "C" int sinkhorn_cuda_backward(const float *in, const float *grad_out, float *grad_in,
                                      int64_t count, int iterations, float eps,
                                      cudaStream_t stream) {
    backward<<<blocks(count), THREADS, 0, stream>>>(in, grad_out, grad_in, count,
                                                    2 * iterations - 1, eps);
    return cudaGetLastError();
}

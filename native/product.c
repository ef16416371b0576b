/**
 * The BLAS calls. One sums in float32, block by block, so past GROUP terms the sums of groups are added in float64, as in the wasm
 * kernel (src/chunked/product/kernel.as.ts): the digits do not fade with K.
 */
#include "product.h"

#include <string.h>

#ifdef __APPLE__
#include <Accelerate/Accelerate.h>
#else
#include <cblas.h>
#endif

enum {
  GROUP = 4096, /* terms summed in float32 */
  STRIP = 256,  /* rows of C with float64 totals at one time: they bound the memory */
};

static int min(int x, int y) { return x < y ? x : y; }

/** Every row of C = bias, or zeros. */
static void fill_rows(float *c, const float *bias, int rows, int N) {
  const size_t bytes = sizeof(float) * (size_t)N;
  if (!bias) memset(c, 0, bytes * (size_t)rows);
  else
    for (int i = 0; i < rows; i++) memcpy(c + (size_t)i * N, bias, bytes);
}

/**
 * Rows of C = bias + A B, with `lda` and `ldb` floats from a stored row to the next. A single row or column is a matrix times a
 * vector, for which gemm can be ten times slower than gemv. It is added to zeros: beta = 0 may let NaN through in gemv.
 */
static void block(const float *a, int lda, const float *b, int ldb, const float *bias, float *c, const Product *p) {
  const int M = p->M, N = p->N, K = p->K;
  const enum CBLAS_TRANSPOSE opA = p->transposeA ? CblasTrans : CblasNoTrans, opB = p->transposeB ? CblasTrans : CblasNoTrans;
  const bool vector = M == 1 || N == 1;
  if (bias || vector || K == 0) fill_rows(c, bias, M, N);
  if (K == 0) return;
  if (M == 1) {
    const enum CBLAS_TRANSPOSE turned = p->transposeB ? CblasNoTrans : CblasTrans;
    cblas_sgemv(CblasRowMajor, turned, p->transposeB ? N : K, p->transposeB ? K : N, 1, b, ldb, a, p->transposeA ? lda : 1, 1, c, 1);
  } else if (N == 1) {
    cblas_sgemv(CblasRowMajor, opA, p->transposeA ? K : M, p->transposeA ? M : K, 1, a, lda, b, p->transposeB ? 1 : ldb, 1, c, 1);
  } else {
    cblas_sgemm(CblasRowMajor, opA, opB, M, N, K, 1, a, lda, b, ldb, bias ? 1 : 0, c, N);
  }
}

size_t total_count(const Product *p) { return p->K > GROUP ? (size_t)min(p->M, STRIP) * (size_t)p->N : 0; }

/** A strip of C: groups of terms, their sums added in float64. */
static void long_strip(const float *a, int lda, const float *b, int ldb, const float *bias, float *c, const Product *p, double *totals) {
  const size_t count = (size_t)p->M * (size_t)p->N;
  for (size_t i = 0; i < count; i++) totals[i] = bias ? bias[i % (size_t)p->N] : 0;
  for (int k = 0; k < p->K; k += GROUP) {
    Product group = *p;
    group.K = min(GROUP, p->K - k);
    block(a + (size_t)k * (p->transposeA ? lda : 1), lda, b + (size_t)k * (p->transposeB ? 1 : ldb), ldb, NULL, c, &group);
    for (size_t i = 0; i < count; i++) totals[i] += c[i];
  }
  for (size_t i = 0; i < count; i++) c[i] = (float)totals[i];
}

void multiply(const float *a, const float *b, const float *bias, float *c, const Product *p, double *totals) {
  const int lda = p->transposeA ? p->M : p->K, ldb = p->transposeB ? p->K : p->N;
  if (p->K <= GROUP) {
    block(a, lda, b, ldb, bias, c, p);
    return;
  }
  for (int i = 0; i < p->M; i += STRIP) {
    Product strip = *p;
    strip.M = min(STRIP, p->M - i);
    long_strip(a + (size_t)i * (p->transposeA ? 1 : lda), lda, b, ldb, bias, c + (size_t)i * p->N, &strip, totals);
  }
}

void multiply_within(const float *a, const float *b, float *c, const Product *p, const Strides *rows, bool add) {
  cblas_sgemm(CblasRowMajor, p->transposeA ? CblasTrans : CblasNoTrans, p->transposeB ? CblasTrans : CblasNoTrans, p->M, p->N, p->K, 1, a,
              rows->a, b, rows->b, add ? 1 : 0, c, rows->c);
}

#ifdef __APPLE__
void set_threads(int count) { (void)count; }
const char *library_config(void) { return "Accelerate"; }
const char *library_core(void) { return "Apple"; }
#else
void set_threads(int count) { openblas_set_num_threads(count); }
const char *library_config(void) { return openblas_get_config(); }
const char *library_core(void) { return openblas_get_corename(); }
#endif

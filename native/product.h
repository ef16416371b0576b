/** Products of dense row-major float32 matrices by the system's BLAS. */
#ifndef SEQMIX_PRODUCT_H
#define SEQMIX_PRODUCT_H
#include <stdbool.h>
#include <stddef.h>

/** C [M, N] = op(A) op(B), K summed over; A is stored [K, M] with transposeA, B [N, K] with transposeB. */
typedef struct {
  int M, N, K;
  bool transposeA, transposeB;
} Product;

/** Floats64 that `multiply` needs at `totals`; 0 for none. */
size_t total_count(const Product *p);

/** C = op(A) op(B) + bias; `bias` [N] is NULL for none. C is written only: what was there, NaN too, is gone. */
void multiply(const float *a, const float *b, const float *bias, float *c, const Product *p, double *totals);

/** The same where a matrix is part of a larger one: floats from a row of it, as stored, to the next. */
typedef struct {
  int a, b, c;
} Strides;

/** C = op(A) op(B), or C += op(A) op(B) where `add`; sums in float32 however large K. Without `add` what was in C is gone, NaN too. */
void multiply_within(const float *a, const float *b, float *c, const Product *p, const Strides *rows, bool add);

/** Number of threads a product is shared out to; Accelerate decides for itself. */
void set_threads(int count);

/** What computes: name, version and build options, and the set of kernels it chose for this processor. */
const char *library_config(void);
const char *library_core(void);

#endif

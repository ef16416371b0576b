/** The door to JavaScript: reads and checks the arguments. Whatever is wrong is an error there, never a crash. */
#define NAPI_VERSION 8
#include <node_api.h>

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "product.h"

enum { MAX_ARGS = 13 };

typedef struct {
  char *data;
  size_t bytes;
} Memory;

static void *fail(napi_env env, const char *message) {
  napi_throw_range_error(env, NULL, message);
  return NULL;
}

/** The arguments of a call that must have `count` of them; false with an error pending. */
static bool take_args(napi_env env, napi_callback_info info, size_t count, napi_value *args) {
  size_t given = MAX_ARGS;
  if (napi_get_cb_info(env, info, &given, args, NULL, NULL) == napi_ok && given == count) return true;
  return fail(env, "seqmix native: wrong number of arguments");
}

/** A whole number from 0 to `max`. */
static bool take_number(napi_env env, napi_value value, double max, const char *what, double *out) {
  if (napi_get_value_double(env, value, out) == napi_ok && *out >= 0 && *out <= max && *out == floor(*out)) return true;
  char message[96];
  snprintf(message, sizeof message, "seqmix native: %s must be a whole number from 0 to %.0f", what, max);
  return fail(env, message);
}

/** An ArrayBuffer, or a view: of a SharedArrayBuffer Node-API knows no more. */
static bool take_memory(napi_env env, napi_value value, Memory *out) {
  void *data;
  napi_typedarray_type type;
  size_t length;
  if (napi_get_arraybuffer_info(env, value, &data, &out->bytes) == napi_ok) {
    out->data = data;
    return true;
  }
  if (napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL) == napi_ok && type == napi_uint8_array) {
    out->data = data;
    out->bytes = length;
    return true;
  }
  return fail(env, "seqmix native: the memory must be an ArrayBuffer or a Uint8Array");
}

/** M, N, K, transposeA, transposeB. */
static bool take_product(napi_env env, const napi_value *args, Product *out) {
  double M, N, K;
  if (!take_number(env, args[0], INT_MAX, "M", &M) || !take_number(env, args[1], INT_MAX, "N", &N) || !take_number(env, args[2], INT_MAX, "K", &K))
    return false;
  *out = (Product){.M = (int)M, .N = (int)N, .K = (int)K};
  if (napi_get_value_bool(env, args[3], &out->transposeA) == napi_ok && napi_get_value_bool(env, args[4], &out->transposeB) == napi_ok)
    return true;
  return fail(env, "seqmix native: transposeA and transposeB must be booleans");
}

/**
 * Where a matrix lies whose rows are `stride` floats apart, NULL with an error pending when it does not lie inside. Sizes are exact: past
 * 2^53 nothing fits anyway.
 */
static float *matrix_within(napi_env env, const Memory *memory, double offset, double rows, double columns, double stride, const char *name) {
  const double end = offset + (rows > 0 ? 4 * ((rows - 1) * stride + columns) : 0);
  if (fmod(offset, 4) == 0 && end <= (double)memory->bytes) return (float *)(memory->data + (size_t)offset);
  char message[192];
  snprintf(message, sizeof message, "seqmix native: %s [%.0f, %.0f] at byte %.0f must be aligned to 4 bytes and end within the memory of %zu bytes",
           name, rows, columns, offset, memory->bytes);
  return fail(env, message);
}

static float *matrix(napi_env env, const Memory *memory, double offset, double rows, double columns, const char *name) {
  return matrix_within(env, memory, offset, rows, columns, columns, name);
}

/** Checks and multiplies one triple of offsets. */
static bool run(napi_env env, const Memory *memory, const double at[3], const float *bias, const Product *p, double *totals) {
  const float *a = matrix(env, memory, at[0], p->transposeA ? p->K : p->M, p->transposeA ? p->M : p->K, "a");
  const float *b = a ? matrix(env, memory, at[1], p->transposeB ? p->N : p->K, p->transposeB ? p->K : p->N, "b") : NULL;
  float *c = b ? matrix(env, memory, at[2], p->M, p->N, "c") : NULL;
  if (c && p->M > 0 && p->N > 0) multiply(a, b, bias, c, p, totals);
  return c != NULL;
}

/** The bias row (NULL at offset 0) and the memory for totals. */
static bool prepare(napi_env env, const Memory *memory, napi_value offset, const Product *p, const float **bias, double **totals) {
  double at;
  if (!take_number(env, offset, UINT32_MAX, "bias", &at)) return false;
  *bias = at ? matrix(env, memory, at, 1, p->N, "bias") : NULL;
  if (at && !*bias) return false;
  const size_t count = total_count(p);
  *totals = count ? malloc(sizeof(double) * count) : NULL;
  if (count && !*totals) return fail(env, "seqmix native: no memory for the totals of a long product");
  return true;
}

/** multiply(memory, a, b, c, bias, M, N, K, transposeA, transposeB) */
static napi_value js_multiply(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGS];
  Memory memory;
  Product p;
  double at[3], *totals;
  const float *bias;
  if (!take_args(env, info, 10, args) || !take_memory(env, args[0], &memory) || !take_product(env, args + 5, &p)) return NULL;
  for (int i = 0; i < 3; i++)
    if (!take_number(env, args[1 + i], UINT32_MAX, "an offset", &at[i])) return NULL;
  if (!prepare(env, &memory, args[4], &p, &bias, &totals)) return NULL;
  run(env, &memory, at, bias, &p, totals);
  free(totals);
  return NULL;
}

/** multiplyAll(memory, offsets, bias, M, N, K, transposeA, transposeB), offsets a Uint32Array of a, b, c, a, b, c, ... */
static napi_value js_multiply_all(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGS];
  Memory memory;
  Product p;
  double *totals;
  const float *bias;
  if (!take_args(env, info, 8, args) || !take_memory(env, args[0], &memory) || !take_product(env, args + 3, &p)) return NULL;
  napi_typedarray_type type;
  size_t length;
  void *offsets;
  if (napi_get_typedarray_info(env, args[1], &type, &length, &offsets, NULL, NULL) != napi_ok || type != napi_uint32_array || length % 3)
    return fail(env, "seqmix native: offsets must be a Uint32Array of triples");
  if (!prepare(env, &memory, args[2], &p, &bias, &totals)) return NULL;
  for (const uint32_t *at = offsets, *end = at + length; at < end; at += 3)
    if (!run(env, &memory, (double[3]){at[0], at[1], at[2]}, bias, &p, totals)) break;
  free(totals);
  return NULL;
}

/** The matrix a, b or c of a product within larger ones: its offset and the stride of its rows, which must be at least its columns. */
static float *take_matrix(napi_env env, const Memory *memory, const napi_value *args, int rows, int columns, const char *name, int *stride) {
  double offset, floats;
  if (!take_number(env, args[0], UINT32_MAX, "an offset", &offset) || !take_number(env, args[1], INT_MAX, "a stride", &floats)) return NULL;
  *stride = (int)floats;
  if (floats >= columns && floats >= 1) return matrix_within(env, memory, offset, rows, columns, floats, name);
  char message[96];
  snprintf(message, sizeof message, "seqmix native: the stride of %s must be at least its %d columns", name, columns);
  return fail(env, message);
}

/** multiplyWithin(memory, a, strideA, b, strideB, c, strideC, M, N, K, transposeA, transposeB, add) */
static napi_value js_multiply_within(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGS];
  Memory memory;
  Product p;
  Strides rows;
  bool add;
  if (!take_args(env, info, 13, args) || !take_memory(env, args[0], &memory) || !take_product(env, args + 7, &p)) return NULL;
  if (napi_get_value_bool(env, args[12], &add) != napi_ok) return fail(env, "seqmix native: add must be a boolean");
  const float *a = take_matrix(env, &memory, args + 1, p.transposeA ? p.K : p.M, p.transposeA ? p.M : p.K, "a", &rows.a);
  const float *b = a ? take_matrix(env, &memory, args + 3, p.transposeB ? p.N : p.K, p.transposeB ? p.K : p.N, "b", &rows.b) : NULL;
  float *c = b ? take_matrix(env, &memory, args + 5, p.M, p.N, "c", &rows.c) : NULL;
  if (c && p.M > 0 && p.N > 0) multiply_within(a, b, c, &p, &rows, add);
  return NULL;
}

/** setThreads(count) */
static napi_value js_set_threads(napi_env env, napi_callback_info info) {
  napi_value args[MAX_ARGS];
  double count;
  if (!take_args(env, info, 1, args) || !take_number(env, args[0], 1024, "threads", &count)) return NULL;
  if (count < 1) return fail(env, "seqmix native: threads must be at least 1");
  set_threads((int)count);
  return NULL;
}

static bool export_function(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function) == napi_ok &&
         napi_set_named_property(env, exports, name, function) == napi_ok;
}

static bool export_text(napi_env env, napi_value exports, const char *name, const char *text) {
  napi_value value;
  return napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value) == napi_ok && napi_set_named_property(env, exports, name, value) == napi_ok;
}

NAPI_MODULE_INIT() {
  const bool done = export_function(env, exports, "multiply", js_multiply) && export_function(env, exports, "multiplyAll", js_multiply_all) &&
                    export_function(env, exports, "multiplyWithin", js_multiply_within) && export_function(env, exports, "setThreads", js_set_threads) && export_text(env, exports, "config", library_config()) &&
                    export_text(env, exports, "core", library_core());
  if (!done) napi_throw_error(env, NULL, "seqmix native: could not make its exports");
  return exports;
}

{
  # Compiler and linker flags for where OpenBLAS lies come from scripts/build-native.mjs, in CFLAGS and LDFLAGS.
  "targets": [
    {
      "target_name": "seqmix",
      "sources": ["product.c", "addon.c"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
      "conditions": [
        [
          "OS=='mac'",
          {
            "defines": ["ACCELERATE_NEW_LAPACK"],
            "libraries": ["-framework Accelerate"],
            "xcode_settings": {"GCC_OPTIMIZATION_LEVEL": "2"},
          },
          {"libraries": ["-lopenblas"]},
        ]
      ],
    }
  ]
}

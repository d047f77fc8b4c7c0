// SPDX-License-Identifier: Apache-2.0
// Runs a network that Python compiled ahead of time (AOTInductor), in a program without Python.
//   run_package <operator library> <package.pt2> <input.bin> <output.bin> N C H W
// The binary files hold float32 values in C order.
#include <ATen/ops/empty.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 9) {
    std::cerr << "usage: " << argv[0]
              << " <operator library> <package.pt2> <input.bin> <output.bin> N C H W\n";
    return 2;
  }
  // Registers torch.ops.semisparse with the dispatcher; the package calls the operators by name.
  if (dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) == nullptr) throw std::runtime_error(dlerror());

  std::vector<int64_t> shape;
  for (int i = 5; i < 9; ++i) shape.push_back(std::atoll(argv[i]));
  at::Tensor input = at::empty(shape, at::kFloat);
  std::ifstream(argv[3], std::ios::binary).read(static_cast<char*>(input.data_ptr()), input.nbytes());

  torch::inductor::AOTIModelPackageLoader loader(argv[2]);
  const c10::InferenceMode mode;
  std::vector<at::Tensor> outputs;
  for (int repeat = 0; repeat < 3; ++repeat) outputs = loader.run({input});
  const at::Tensor output = outputs.at(0).contiguous();
  std::ofstream(argv[4], std::ios::binary)
      .write(static_cast<const char*>(output.data_ptr()), output.nbytes());
  if (dlsym(RTLD_DEFAULT, "Py_Initialize") != nullptr) throw std::runtime_error("Python is in this process");
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}

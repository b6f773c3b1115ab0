// cublasLt is looked for when the first product is made, not when the program starts: a program
// with the GPU engine in it runs where CUDA's libraries are not.
#pragma once

#include <string>

namespace plumbline::cuda {

// Empty when the library is loaded or can be; else what the loader said, for a message.
std::string CublasLtProblem();

}  // namespace plumbline::cuda

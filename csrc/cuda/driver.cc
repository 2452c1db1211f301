#include "cuda/driver.h"

#include <dlfcn.h>

#include "core/error.h"

namespace ronde::cuda {

Driver::Driver() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    missing_ = std::string("there is no NVIDIA driver: ") + dlerror();
    return;
  }
  const auto find = [&](auto& pointer, const char* symbol) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(dlsym(library, symbol));
    if (!pointer && missing_.empty())
      missing_ = std::string("the NVIDIA driver is too old: it has no ") + symbol;
  };
#define RONDE_CUDA_FIND(name, symbol, arguments) find(name, symbol);
  RONDE_CUDA_DRIVER(RONDE_CUDA_FIND)
#undef RONDE_CUDA_FIND
  if (!missing_.empty()) return;
  try {
    const auto status = Init(0);
    if (status == Status::no_device) {
      missing_ = "the NVIDIA driver finds no GPU (or CUDA_VISIBLE_DEVICES hides all)";
      return;
    }
    check(status, "starting the NVIDIA driver");
  } catch (const Error& error) {
    missing_ = error.what();
  }
}

const Driver& Driver::loaded() {
  static const Driver& driver = *new Driver;  // never destroyed: nor is what the library holds
  return driver;
}

const std::string& Driver::missing() { return loaded().missing_; }

const Driver& Driver::get() {
  const auto& driver = loaded();
  if (!driver.missing_.empty()) throw UnavailableError(driver.missing_);
  return driver;
}

int Driver::version() const {
  int version = 0;
  check(DriverGetVersion(&version), "asking for the version of the NVIDIA driver");
  return version;
}

int Driver::devices() const {
  int count = 0;
  check(DeviceGetCount(&count), "counting the GPUs");
  return count;
}

void Driver::fail(Status status, const std::string& what) const {
  const char *name = nullptr, *words = nullptr;
  GetErrorName(status, &name);
  GetErrorString(status, &words);
  std::string text = what + " failed: ";
  text += name ? name : "error " + std::to_string(static_cast<int>(status));
  if (words) text += std::string(" (") + words + ")";
  throw Error(text);
}

}  // namespace ronde::cuda

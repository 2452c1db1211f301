#include "cuda/nccl.h"

#include <dlfcn.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace ronde::cuda {
namespace {

constexpr auto kFile = "libnccl.so.2";
// How long a communicator that ends waits for the others, which end at about the same time.
constexpr std::chrono::seconds kPatience{1};

// Where to look, until it is known.
std::mutex where_mutex;
std::string& where() {
  static auto& file = *new std::string;
  return file;
}
bool looked = false;

const char* name_of(NcclStatus status) {
  switch (status) {
    case NcclStatus::success:
      return "ncclSuccess";
    case NcclStatus::unhandled_cuda_error:
      return "ncclUnhandledCudaError";
    case NcclStatus::system_error:
      return "ncclSystemError";
    case NcclStatus::internal_error:
      return "ncclInternalError";
    case NcclStatus::invalid_argument:
      return "ncclInvalidArgument";
    case NcclStatus::invalid_usage:
      return "ncclInvalidUsage";
    case NcclStatus::remote_error:
      return "ncclRemoteError";
    case NcclStatus::in_progress:
      return "ncclInProgress";
  }
  return nullptr;
}

/// The library, or null and why.
std::pair<void*, std::string> open() {
  const std::lock_guard lock(where_mutex);
  looked = true;
  if (void* const library = dlopen(kFile, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD))
    return {library, {}};
  std::string why;
  for (const auto& file : {where(), std::string(kFile)}) {
    if (file.empty()) continue;
    if (void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return {library, {}};
    why += (why.empty() ? "" : "; ") + std::string(dlerror());
  }
  return {nullptr, why};
}

}  // namespace

NcclType nccl_type(DType dtype) {
  switch (dtype) {
    case DType::int8:
      return NcclType::int8;
    case DType::int32:
      return NcclType::int32;
    case DType::int64:
      return NcclType::int64;
    case DType::uint8:
      return NcclType::uint8;
    case DType::uint32:
      return NcclType::uint32;
    case DType::uint64:
      return NcclType::uint64;
    case DType::float16:
      return NcclType::float16;
    case DType::bfloat16:
      return NcclType::bfloat16;
    case DType::float32:
      return NcclType::float32;
    case DType::float64:
      return NcclType::float64;
    case DType::boolean:
    case DType::int16:
    case DType::uint16:
      break;
  }
  throw ArgumentError("NCCL cannot reduce " + std::string(name_of(dtype)) +
                      ": it knows integers of 8, 32 and 64 bits, float16, bfloat16, float32 and "
                      "float64");
}

NcclOp nccl_op(ReduceOp op) {
  constexpr NcclOp ops[kReduceOpCount] = {NcclOp::sum, NcclOp::product, NcclOp::min, NcclOp::max};
  return ops[static_cast<int>(op)];
}

// The library -------------------------------------------------------------------------------------

void Nccl::look_in(std::string file) {
  const std::lock_guard lock(where_mutex);
  if (looked && file != where())
    throw Error("it is too late to look for NCCL in " + file + ": it is in use");
  where() = std::move(file);
}

Nccl::Nccl() {
  const auto [library, why] = open();
  if (!library) {
    missing_ = "there is no NCCL, " + why +
               ": install the package nvidia-nccl-cu12 or nvidia-nccl-cu13, or NVIDIA's for this "
               "system";
    return;
  }
  const auto find = [&, library = library](auto& pointer, const char* symbol) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(dlsym(library, symbol));
    return pointer != nullptr;
  };
#define RONDE_NCCL_FIND(result, name, arguments)     \
  if (!find(name, "nccl" #name) && missing_.empty()) \
    missing_ = "NCCL is too old: it has no nccl" #name;
  RONDE_NCCL(RONDE_NCCL_FIND)
#undef RONDE_NCCL_FIND
#define RONDE_NCCL_FIND(result, name, arguments) find(name, "nccl" #name);
  RONDE_NEWER_NCCL(RONDE_NCCL_FIND)
#undef RONDE_NCCL_FIND
}

const Nccl& Nccl::loaded() {
  static const Nccl& nccl = *new Nccl;  // never destroyed: nor is what the library holds
  return nccl;
}

const std::string& Nccl::missing() { return loaded().missing_; }

const Nccl& Nccl::get() {
  const auto& nccl = loaded();
  if (!nccl.missing_.empty()) throw UnavailableError(nccl.missing_);
  return nccl;
}

void Nccl::throw_error(NcclStatus status, std::string_view what, NcclHandle communicator) const {
  const char* const name = name_of(status);
  const char* const words = GetErrorString(status);
  const char* const last = GetLastError ? GetLastError(communicator) : nullptr;
  std::string text = std::string(what) + " failed: ";
  text += name ? name : "NCCL's error " + std::to_string(static_cast<int>(status));
  if (words) text += std::string(" (") + words + ")";
  if (last && *last) text += std::string(": ") + last;
  throw Error(text);
}

int Nccl::version() const {
  int version = 0;
  check(GetVersion(&version), "to ask for the version of NCCL");
  return version;
}

std::string Nccl::version_text() const {
  // Since 2.9 the major version has five digits behind it.
  const int all = version(), major = all < 20000 ? 1000 : 10000, rest = all % major;
  return std::to_string(all / major) + "." + std::to_string(rest / 100) + "." +
         std::to_string(rest % 100);
}

bool Nccl::shares_gpus() const {
  const char* const enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return version() >= 23000 && enabled && std::string_view(enabled) == "1";
}

NcclId Nccl::unique_id() const {
  NcclId id;
  check(GetUniqueId(&id), "to make the id of an NCCL communicator");
  return id;
}

// Communicators -----------------------------------------------------------------------------------

NcclCommunicator::NcclCommunicator(const Device& device, const NcclId& id, int size, int rank)
    : device_(device), size_(size), rank_(rank) {
  const Device::Current current(device_);
  const auto& nccl = Nccl::get();
  NcclConfig config;
  const auto status = nccl.CommInitRankConfig
                          ? nccl.CommInitRankConfig(&handle_, size, id, rank, &config)
                          : nccl.CommInitRank(&handle_, size, id, rank);
  nccl.check(status, "to begin an NCCL communicator");
}

/// Frees it. NCCL waits for all kernels of the GPU then: those of other communicators too, which
/// end only if they are aborted as well. So nobody waits for it without a limit.
std::future<void> NcclCommunicator::end(bool done) {
  std::packaged_task<void()> task([&device = device_, handle = std::exchange(handle_, {}), done] {
    try {
      const Device::Current current(device);
      const auto& nccl = Nccl::get();
      done ? nccl.CommDestroy(handle) : nccl.CommAbort(handle);
    } catch (const Error&) {  // the driver has ended
    }
  });
  auto ended = task.get_future();
  std::thread(std::move(task)).detach();
  return ended;
}

NcclCommunicator::~NcclCommunicator() {
  if (!handle_) return;
  try {
    end(finish()).wait_for(kPatience);
  } catch (const std::exception&) {  // the driver has ended, or there can be no thread
  }
}

/// Whether all that was called has been done, by all ranks.
bool NcclCommunicator::finish() const {
  const Device::Current current(device_);
  const auto& nccl = Nccl::get();
  if (!nccl.CommFinalize) return false;
  const auto until = std::chrono::steady_clock::now() + kPatience;
  const auto done = [&] {
    while (state() == NcclStatus::in_progress && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return state() == NcclStatus::success;
  };
  if (!done()) return false;
  nccl.CommFinalize(handle_);
  return done();
}

NcclHandle NcclCommunicator::handle() const {
  if (!handle_) throw Error("this NCCL communicator was aborted");
  return handle_;
}

NcclStatus NcclCommunicator::state() const {
  auto state = NcclStatus::success;
  const auto asked = Nccl::get().CommGetAsyncError(handle(), &state);
  return asked == NcclStatus::success ? state : asked;
}

bool NcclCommunicator::ready() const {
  const auto now = state();
  if (now == NcclStatus::in_progress) return false;
  if (now != NcclStatus::success) Nccl::get().throw_error(now, "an NCCL communicator", handle_);
  return true;
}

std::string NcclCommunicator::error() const {
  try {
    ready();
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

void NcclCommunicator::abort() {
  if (handle_) end(false);
}

template <class F>
void NcclCommunicator::call(const char* what, F f) {
  const Device::Current current(device_);
  const auto& nccl = Nccl::get();
  nccl.check(f(nccl, handle()), what);
}

void NcclCommunicator::all_reduce(StreamHandle stream, const NcclBuffers& buffers, ReduceOp op) {
  const auto& [in, out, count, dtype] = buffers;
  const auto type = nccl_type(dtype);
  call("NCCL's all-reduce", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.AllReduce(in, out, count, type, nccl_op(op), handle, stream);
  });
}

void NcclCommunicator::reduce(StreamHandle stream, const NcclBuffers& buffers, ReduceOp op,
                              int root) {
  const auto& [in, out, count, dtype] = buffers;
  const auto type = nccl_type(dtype);
  call("NCCL's reduce", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.Reduce(in, out, count, type, nccl_op(op), root, handle, stream);
  });
}

void NcclCommunicator::reduce_scatter(StreamHandle stream, const NcclBuffers& buffers,
                                      ReduceOp op) {
  const auto& [in, out, count, dtype] = buffers;
  const auto type = nccl_type(dtype);
  call("NCCL's reduce-scatter", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.ReduceScatter(in, out, count, type, nccl_op(op), handle, stream);
  });
}

// NCCL takes what only moves for bytes, whatever its type.

void NcclCommunicator::all_gather(StreamHandle stream, const NcclBuffers& buffers) {
  const auto bytes = buffers.count * size_of(buffers.dtype);
  call("NCCL's all-gather", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.AllGather(buffers.in, buffers.out, bytes, NcclType::uint8, handle, stream);
  });
}

void NcclCommunicator::broadcast(StreamHandle stream, const NcclBuffers& buffers, int root) {
  const auto bytes = buffers.count * size_of(buffers.dtype);
  call("NCCL's broadcast", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.Broadcast(buffers.in, buffers.out, bytes, NcclType::uint8, root, handle, stream);
  });
}

void NcclCommunicator::send(StreamHandle stream, const void* from, std::size_t bytes, int peer) {
  call("NCCL's send", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.Send(from, bytes, NcclType::uint8, peer, handle, stream);
  });
}

void NcclCommunicator::receive(StreamHandle stream, void* to, std::size_t bytes, int peer) {
  call("NCCL's receive", [&](const Nccl& nccl, NcclHandle handle) {
    return nccl.Recv(to, bytes, NcclType::uint8, peer, handle, stream);
  });
}

// Groups ------------------------------------------------------------------------------------------

NcclGroup::NcclGroup() {
  const auto& nccl = Nccl::get();
  nccl.check(nccl.GroupStart(), "to begin a group of NCCL's calls");
}

NcclGroup::~NcclGroup() {
  if (open_) Nccl::get().GroupEnd();
}

void NcclGroup::end() {
  open_ = false;
  const auto& nccl = Nccl::get();
  nccl.check(nccl.GroupEnd(), "to end a group of NCCL's calls");
}

}  // namespace ronde::cuda

#include "transport/mpi.h"

#include <limits>

#include "core/error.h"
#include "transport/mpi_api.h"
#include "transport/slots.h"

namespace ronde {
namespace {

constexpr std::size_t kStatusBytes = 128;  // every known MPI_Status is far smaller

template <class Handle>
class Library final : public MpiLibrary, public std::enable_shared_from_this<Library<Handle>> {
 public:
  explicit Library(const MpiConstants& constants)
      : constants(constants), api(MpiApi<Handle>::load(constants.extension)) {}

  std::shared_ptr<Transport> transport(std::uint64_t communicator, int rank, int size) override;

  std::string version() override { return api.version(); }

  std::string describe(int code) const {
    char text[1024] = {};
    int length = 0;
    api.Error_string(code, text, &length);
    return text;
  }

  const MpiConstants constants;
  const MpiApi<Handle> api;
};

template <class Handle>
class MpiTransport final : public Transport {
 public:
  MpiTransport(std::shared_ptr<Library<Handle>> library, std::uint64_t communicator, int rank,
               int size)
      : library_(std::move(library)),
        communicator_(static_cast<Handle>(communicator)),
        byte_(static_cast<Handle>(library_->constants.byte_type)),
        rank_(rank),
        size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Request send(int peer, int tag, ConstBuffer message) override {
    const int count = checked(message.bytes);
    std::lock_guard lock(library_->mutex);
    const auto slot = pending_.take();
    pending_[slot] = {{}, peer, message.bytes, true};
    const int code = library_->api.Isend(message.data, count, byte_, peer, tag, communicator_,
                                         &pending_[slot].handle);
    if (code != library_->constants.success) fail("MPI_Isend", peer, code);
    sent_ += count;
    return slot;
  }

  Request recv(int peer, int tag, Buffer capacity) override {
    const int count = checked(capacity.bytes);
    std::lock_guard lock(library_->mutex);
    const auto slot = pending_.take();
    pending_[slot] = {{}, peer, 0, false};
    const int source = peer == kAnyPeer ? library_->constants.any_source : peer;
    const int code = library_->api.Irecv(capacity.data, count, byte_, source, tag, communicator_,
                                         &pending_[slot].handle);
    if (code != library_->constants.success) fail("MPI_Irecv", peer, code);
    return slot;
  }

  std::optional<std::size_t> test(Request request) override {
    std::lock_guard lock(library_->mutex);
    auto& pending = pending_[request];
    alignas(16) char status[kStatusBytes];
    int complete = 0;
    const int code = library_->api.Test(&pending.handle, &complete, status);
    if (code != library_->constants.success) fail("MPI_Test", pending.peer, code);
    if (!complete) return std::nullopt;
    std::size_t bytes = pending.bytes;
    if (!pending.is_send) {
      int count = 0;
      library_->api.Get_count(status, byte_, &count);
      bytes = static_cast<std::size_t>(count);
    }
    pending_.give_back(request);
    return bytes;
  }

  std::int64_t bytes_sent() const override {
    std::lock_guard lock(library_->mutex);
    return sent_;
  }

 private:
  struct Pending {
    Handle handle;
    int peer;
    std::size_t bytes;
    bool is_send;
  };

  static int checked(std::size_t bytes) {
    if (bytes > static_cast<std::size_t>(std::numeric_limits<int>::max()))
      throw Error("a message of " + std::to_string(bytes) + " bytes is too long for MPI");
    return static_cast<int>(bytes);
  }

  [[noreturn]] void fail(const char* function, int peer, int code) const {
    const std::string whom = peer == kAnyPeer ? "" : " with rank " + std::to_string(peer);
    throw RankFailedError(std::string(function) + whom + ": " + library_->describe(code));
  }

  const std::shared_ptr<Library<Handle>> library_;
  const Handle communicator_;
  const Handle byte_;
  const int rank_;
  const int size_;
  Slots<Pending> pending_;
  std::int64_t sent_ = 0;  // bytes
};

template <class Handle>
std::shared_ptr<Transport> Library<Handle>::transport(std::uint64_t communicator, int rank,
                                                      int size) {
  return std::make_shared<MpiTransport<Handle>>(this->shared_from_this(), communicator, rank, size);
}

}  // namespace

std::shared_ptr<MpiLibrary> MpiLibrary::open(const MpiConstants& constants) {
  if (constants.status_bytes > kStatusBytes)
    throw UnavailableError("this MPI library's MPI_Status is larger than any known");
  if (constants.handle_bytes == 4) return std::make_shared<Library<std::uint32_t>>(constants);
  if (constants.handle_bytes == 8) return std::make_shared<Library<std::uint64_t>>(constants);
  throw UnavailableError("this MPI library's handles have " +
                         std::to_string(constants.handle_bytes) + " bytes; 4 and 8 are known");
}

}  // namespace ronde

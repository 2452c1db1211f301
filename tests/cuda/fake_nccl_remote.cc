#include "fake_nccl_remote.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace fake_nccl {
namespace {

enum class Question : std::uint32_t { join, state, error, run, finalise, abort };

/// A connection. Nothing is read or written once it is lost.
class Socket {
 public:
  explicit Socket(int file) : file_(file) {}
  Socket(Socket&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (file_ >= 0) close(file_);
  }

  bool lost() const { return lost_; }

  void write(const void* data, std::size_t bytes) {
    const auto* at = static_cast<const char*>(data);
    while (bytes > 0 && !lost_) step(at, bytes, send(file_, at, bytes, MSG_NOSIGNAL));
  }
  void read(void* data, std::size_t bytes) {
    auto* at = static_cast<char*>(data);
    while (bytes > 0 && !lost_) step(at, bytes, recv(file_, at, bytes, 0));
  }
  template <class T>
  void put(const T& value) {
    write(&value, sizeof value);
  }
  template <class T>
  T get() {
    T value{};
    read(&value, sizeof value);
    return value;
  }
  void put_text(const std::string& text) {
    put(text.size());
    write(text.data(), text.size());
  }
  std::string get_text() {
    std::string text(get<std::size_t>(), '\0');
    read(text.data(), text.size());
    return text;
  }

 private:
  template <class At>
  void step(At& at, std::size_t& bytes, ssize_t done) {
    lost_ = done <= 0;
    if (lost_) return;
    at += done;
    bytes -= static_cast<std::size_t>(done);
  }

  int file_;
  bool lost_ = false;
};

std::string own_name() { return "fake-nccl-" + std::to_string(getpid()); }
std::string name_in(const std::string& id) { return id.substr(0, id.find(' ')); }

std::pair<sockaddr_un, socklen_t> address_of(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // behind a zero: no file
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

// What travels of calls --------------------------------------------------------------------------

std::size_t bytes_read(const Call& call, int rank, int size) {
  if (call.kind == Kind::receive || (call.kind == Kind::broadcast && call.peer != rank)) return 0;
  return bytes_of(call) * static_cast<std::size_t>(call.kind == Kind::reduce_scatter ? size : 1);
}

std::size_t bytes_written(const Call& call, int rank, int size) {
  if (call.kind == Kind::send || (call.kind == Kind::reduce && call.peer != rank)) return 0;
  return bytes_of(call) * static_cast<std::size_t>(call.kind == Kind::all_gather ? size : 1);
}

// Answers ----------------------------------------------------------------------------------------

void answer_run(Socket& socket, World& world, int rank) {
  const auto group = std::make_shared<Group>();
  group->streams.insert(nullptr);
  group->number = socket.get<std::size_t>();
  group->calls.resize(socket.get<std::size_t>());
  std::vector<std::vector<std::byte>> ins, outs;
  for (auto& call : group->calls) {
    call = socket.get<Call>();
    ins.emplace_back(bytes_read(call, rank, world.size()));
    socket.read(ins.back().data(), ins.back().size());
    outs.emplace_back(bytes_written(call, rank, world.size()));
    call.in = ins.back().data();
    call.out = outs.back().data();
  }
  if (socket.lost()) return;
  world.run(rank, group);
  socket.put(group->left == 0);
  for (const auto& out : outs) socket.write(out.data(), out.size());
}

void answer_one(Socket socket, const FindWorld& find) {
  const auto id = socket.get_text();
  const auto rank = socket.get<int>(), size = socket.get<int>();
  const auto question = socket.get<Question>();
  if (socket.lost()) return;
  const auto world = find(id, size);
  switch (question) {
    case Question::join:
      return socket.put_text(world->join(rank, size));
    case Question::state:
      return socket.put(world->state(rank));
    case Question::error:
      return socket.put_text(world->error(rank));
    case Question::run:
      return answer_run(socket, *world, rank);
    case Question::finalise:
      world->finalise(rank, socket.get<std::size_t>());
      return socket.put(true);
    case Question::abort:
      world->abort(rank);
      return socket.put(true);
  }
}

// Questions --------------------------------------------------------------------------------------

class RemoteMember final : public Member {
 public:
  RemoteMember(std::string id, int rank, int size) : Member(rank, size), id_(std::move(id)) {}

  std::string join() override { return ask(Question::join).get_text(); }

  State state() override {
    auto socket = ask(Question::state);
    const auto now = socket.get<State>();
    if (!socket.lost()) known_ = now;
    // Who has gone after this rank has ended had nothing to wait for.
    if (socket.lost() && finalised_) known_.quiet = true;
    return known_;
  }

  std::string error() override { return ask(Question::error).get_text(); }

  void run(const std::shared_ptr<Group>& group) override {
    std::unique_lock lock(mutex_);
    if (++group->arrived < group->streams.size()) {
      changed_.wait(lock, [&] { return group->ended || aborted_; });
      return;
    }
    lock.unlock();
    auto socket = ask(Question::run);
    socket.put(group->number);
    socket.put(group->calls.size());
    for (const auto& call : group->calls) {
      socket.put(call);
      socket.write(call.in, bytes_read(call, rank, size));
    }
    const bool done = socket.get<bool>();
    if (done && !socket.lost()) {
      for (const auto& call : group->calls) socket.read(call.out, bytes_written(call, rank, size));
    }
    lock.lock();
    if (socket.lost()) changed_.wait(lock, [&] { return aborted_; });
    group->ended = true;
    changed_.notify_all();
  }

  void finalise(std::size_t issued) override {
    auto socket = ask(Question::finalise);
    socket.put(issued);
    (void)socket.get<bool>();
    finalised_ = true;
  }

  void abort() override {
    (void)ask(Question::abort).get<bool>();
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    changed_.notify_all();
  }

 private:
  Socket ask(Question question) const {
    const int file = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto [address, length] = address_of(name_in(id_));
    Socket socket(file);
    (void)connect(file, reinterpret_cast<const sockaddr*>(&address), length);
    socket.put_text(id_);  // finds out whether it is connected
    socket.put(rank);
    socket.put(size);
    socket.put(question);
    return socket;
  }

  const std::string id_;
  State known_;
  std::atomic<bool> finalised_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;
};

}  // namespace

std::string make_id() {
  static std::atomic<int> made = 0;
  return own_name() + " " + std::to_string(++made);
}

bool is_local(const std::string& id) { return name_in(id) == own_name(); }

void answer(FindWorld world) {
  const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto [address, length] = address_of(own_name());
  if (bind(file, reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      listen(file, SOMAXCONN) != 0) {
    std::perror("fake NCCL");
    std::abort();
  }
  std::thread([file, world = std::move(world)] {
    while (true) {
      const int connection = accept4(file, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      std::thread([connection, world] { answer_one(Socket(connection), world); }).detach();
    }
  }).detach();
}

std::unique_ptr<Member> remote_member(const std::string& id, int rank, int size) {
  return std::make_unique<RemoteMember>(id, rank, size);
}

}  // namespace fake_nccl

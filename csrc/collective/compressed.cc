#include "collective/compressed.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "collective/gpu_coding.h"
#include "collective/gpu_slices.h"
#include "collective/gpu_sparse_coding.h"
#include "collective/hierarchical.h"
#include "collective/host_coding.h"
#include "collective/machine_slices.h"
#include "collective/memory.h"
#include "collective/network.h"
#include "collective/staging.h"
#include "kernels/kernels.h"
#include "node/shared_reduction.h"

namespace ronde {
namespace {

/// In memory of the host, or of a GPU.
struct Values {
  std::span<const float> values;
  std::span<float> result;
  const cuda::Queue* queue = nullptr;
};

std::unique_ptr<Coding> coding_of(Summand summand, const cuda::Queue* queue) {
  if (!queue) return std::make_unique<HostCoding>(std::move(summand));
  if (summand.compression.compressor->block_code())
    return std::make_unique<GpuCoding>(std::move(summand), *queue);
  return std::make_unique<GpuSparseCoding>(std::move(summand), *queue);
}

/// Where the payload of the sum is the sum of the payloads, it is found like any other sum.
Task<> add_payloads(Lane& lane, Transport& transport, Operation& operation, Compression compression,
                    Values vector, Reduction after) {
  const auto& compressor = *compression.compressor;
  const Buffer payload = operation.allocate(compressor.capacity(vector.values.size())).buffer();
  const std::size_t length = compressor.encode(vector.values, compression.residual,
                                               {.key = compression.key}, payload.data);
  const std::size_t head = *compressor.summable_offset();
  const Buffer numbers = payload.slice(head, length - head);
  const std::size_t count = numbers.bytes / sizeof(float);
  const Layout layout{
      .rank = transport.rank(), .chunks = Chunks::even(count, transport.size()), .inputs = {}};
  const Operands operands{{}, numbers};
  co_await run_on(lane, transport, operation, Collective::allreduce, layout, operands,
                  element_of(after), std::string_view());
  postscale(after, numbers.data, count);
  compressor.decode({payload.data, length}, vector.result, Store::copy);
}

/// After phase 0, between ranks that share no memory, or take no notice of it. `after` says what
/// the sum is scaled by.
Task<> compress(Lane& lane, Transport& transport, Operation& operation, Compression compression,
                Values vector, Reduction after) {
  const auto& compressor = *compression.compressor;
  if (compressor.summable_offset()) {
    co_await add_payloads(lane, transport, operation, compression, vector, after);
    co_return;
  }
  if (compressor.for_sums()) {
    // Bits do not depend on it but for the signs of zeros.
    compression.gathers = !lane.settings().deterministic &&
                          better_gathered(compressor.capacity_of_whole(vector.values.size()),
                                          transport.size(), lane.plans().link());
  }
  if (lane.explains())
    lane.explain(operation,
                 std::string("over the network, compressed, ") +
                     (compression.gathers ? "payloads gathered by all ranks" : "by slices"));
  const auto factor = static_cast<float>(after.postscale / after.divisor);
  const int tag = lane.data_tag(operation);
  lane.next(operation);  // it takes two tags
  auto coding = coding_of({compression, vector.values, vector.result, factor, transport.rank()},
                          vector.queue);
  const auto work = std::make_shared<CompressedAllreduce>(
      transport, compression, vector.values.size(), std::move(coding), tag);
  lane.takes(operation, Counter::bytes_compressed, vector.values.size_bytes());
  operation.entry.moves("compressed");
  const Span span(lane.recorder(), "wire",
                  {.bytes = vector.values.size_bytes(), .by = "compressed"});
  co_await work;
}

bool has_gpu_coding(const Compressor& compressor) {
  return compressor.block_code() || compressor.gpu_selection();
}

/// Sparse payloads take one of two routes, exact sums one of many: by what the link costs.
bool depends_on_link(const Compressor& compressor) {
  return compressor.for_sums() || compressor.summable_offset();
}

/// In the memory of the machine.
class HostSlices final : public MachineSlices {
 public:
  HostSlices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction)
      : lane_(lane), operation_(operation), slices_(lane, operation, pieces, reduction) {}

  Task<> reduce() override {
    const Extremes said = co_await slices_.reduce();
    co_await lane_.agree_by_messages(operation_, said);
  }
  std::span<float> own() const override { return floats_of(slices_.own()); }
  Range place() const override { return slices_.place(); }
  Task<> spread() override { return slices_.spread(); }

  void scale(const Reduction& by, std::span<float> values) const override {
    void* const data = values.data();
    if (by.scales()) reduce_many(by, {&data, 1}, {&data, 1}, values.size(), false);
  }

 private:
  Lane& lane_;
  Operation& operation_;
  Slices slices_;
};

std::unique_ptr<MachineSlices> slices_of(Lane& lane, Operation& operation,
                                         std::span<const Piece> pieces, Reduction reduction) {
  if (on_gpu(pieces)) return std::make_unique<GpuSlices>(lane, operation, pieces, reduction);
  return std::make_unique<HostSlices>(lane, operation, pieces, reduction);
}

Task<> compress_slices(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                       Reduction reduction, Compression compression) {
  Reduction inside = before(reduction, 1), outside = after(reduction, 1);
  // For an average, what a machine sends is the mean of its ranks if their sum might not fit.
  if (reduction.divisor != 1.0 && compression.compressor->overflows()) {
    inside.divisor = lane.board()->size();
    outside.divisor /= inside.divisor;
  }
  const auto slices = slices_of(lane, operation, pieces, inside);
  co_await slices->reduce();
  if (depends_on_link(*compression.compressor))
    co_await know_link(lane, operation, bytes_of(pieces));
  auto& left = compression.residual;
  if (!left.empty()) left = left.subspan(slices->place().offset, slices->place().count);
  // It is in units of a sum, and meanwhile in those of what is sent.
  slices->scale({.divisor = inside.divisor}, left);
  const Values slice{slices->own(), slices->own(), slices->queue()};
  co_await compress(lane, *lane.across(), operation, compression, slice, outside);
  slices->scale({.prescale = inside.divisor}, left);
  co_await slices->spread();
}

Task<> compress_whole(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                      Reduction reduction, Compression compression) {
  co_await lane.agree(operation);
  if (depends_on_link(*compression.compressor))
    co_await know_link(lane, operation, bytes_of(pieces));
  const bool packed = pieces.size() != 1;
  const Buffer result = packed ? operation.allocate(bytes_of(pieces)).buffer() : pieces[0].output;
  if (packed) pack(lane.recorder(), pieces, result);
  ConstBuffer values = packed ? ConstBuffer(result) : pieces[0].input;
  if (reduction.prescale != 1.0) {  // before a compressor can overflow
    copy(result, values);
    prescale(reduction, result.data, elements_of(reduction, result));
    values = result;
  }
  const Values vector{floats_of(values), floats_of(result)};
  co_await compress(lane, lane.transport(), operation, compression, vector, after(reduction, 1));
  if (packed) unpack(lane.recorder(), pieces, result);
}

/// The same where the pieces are on a GPU, and so is the residual.
Task<> compress_on_gpu(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                       Reduction reduction, Compression compression) {
  co_await lane.agree(operation);
  if (depends_on_link(*compression.compressor))
    co_await know_link(lane, operation, bytes_of(pieces));
  auto& device = orders_of(pieces).front()->device();
  GpuVector there(pieces, reduction, {device, cuda::stream_for_call(device)});
  co_await there.may_be_touched();
  there.pack();
  const Values vector{there.values(), there.result(), &there.queue()};
  co_await compress(lane, lane.transport(), operation, compression, vector, after(reduction, 1));
  there.unpack();
}

}  // namespace

bool compresses_on_gpu(const Lane& lane, const Compressor& compressor, bool per_rank) {
  return (!lane.across() || per_rank) && has_gpu_coding(compressor);
}

Task<bool> sums_on_gpus(Lane& lane, Operation& operation, const Compressor& compressor,
                        std::optional<Device> gpu) {
  auto* const nccl = lane.nccl_inside();
  if (!nccl || nccl->refused() || lane.settings().deterministic || !has_gpu_coding(compressor))
    co_return false;
  const auto all_can = operation.zeros<std::uint8_t>(1);
  all_can[0] = gpu && lane.is_own_gpu(gpu->number);
  const Piece vote{buffer_of(all_can), buffer_of(all_can)};
  constexpr Reduction kLeast{.dtype = DType::uint8, .op = ReduceOp::min};
  const auto reduce = lane.shared<SharedAllreduce>(lane.fingerprint(operation, vote.input.bytes),
                                                   Pieces({&vote, 1}), kLeast);
  co_await lane.run_in_memory(operation, reduce);
  if (!all_can[0]) co_return false;
  const bool connected = co_await nccl->connect(lane, operation, cuda::Device::get(gpu->number));
  co_return connected;
}

Task<> allreduce_compressed(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                            Reduction reduction, Compression compression) {
  compression.rank = lane.rank();
  if (lane.across() && !compression.per_rank)
    return compress_slices(lane, operation, pieces, reduction, std::move(compression));
  return (on_gpu(pieces) ? compress_on_gpu : compress_whole)(lane, operation, pieces, reduction,
                                                             std::move(compression));
}

}  // namespace ronde

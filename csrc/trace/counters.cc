#include "trace/counters.h"

namespace ronde {
namespace {

constexpr CounterInfo kTable[kCounters] = {
    {Counter::calls, "calls", 1, "blocking calls that have completed"},
    {Counter::asynchronous_calls, "asynchronous_calls", 1,
     "asynchronous calls that have completed"},
    {Counter::failed_calls, "failed_calls", 1, "calls that have ended with an error"},
    {Counter::bytes_in_shared_memory, "bytes_in_shared_memory", 1,
     "bytes that this rank has passed to collectives in the memory of its machine"},
    {Counter::bytes_over_network, "bytes_over_network", 1,
     "bytes of the vectors on which schedules have run between ranks, sizes and headers included"},
    {Counter::bytes_piggybacked, "bytes_piggybacked", 1,
     "bytes reduced during the comparison of the calls"},
    {Counter::bytes_compressed, "bytes_compressed", 1,
     "bytes reduced in compressed form over the network, counted before compression"},
    {Counter::bytes_over_nccl, "bytes_over_nccl", 1,
     "bytes that this rank has passed to NCCL, from arrays of GPUs"},
    {Counter::bytes_sent, "bytes_sent", 1,
     "bytes of all messages that this rank has sent to others, by MPI"},
    {Counter::waits, "waits", 1,
     "waits for other ranks of 20 ms or more, of blocking calls and of asynchronous ones that run, "
     "also while the program computes"},
    {Counter::wait_nanoseconds, "wait_seconds", 1e-9, "seconds in those waits"},
    {Counter::stall_warnings, "stall_warnings", 1, "waits longer than RONDE_STALL_WARNING"},
    {Counter::slots, "slots", 1,
     "slots of asynchronous calls that have run, each as one collective"},
    {Counter::slot_calls, "slot_calls", 1, "calls in them: the mean fusion is slot_calls / slots"},
    {Counter::slot_bytes, "slot_bytes", 1,
     "bytes in slots of allreduces; a full one has RONDE_FUSION_BYTES, or 4 MiB between machines"},
    {Counter::slots_replayed, "slots_replayed", 1, "slots that have run without negotiation"},
    {Counter::negotiations, "negotiations", 1,
     "rounds in which the ranks told each other what they have pending"},
    {Counter::retries, "retries", 1,
     "negotiations in which no call was pending on all ranks, and which were repeated"},
};

}  // namespace

std::span<const CounterInfo, kCounters> counter_table() { return kTable; }

}  // namespace ronde

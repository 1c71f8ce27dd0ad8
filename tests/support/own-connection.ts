/**
 * For the Node SDK's `channelOptions`: a client that is made anew connects anew. The gRPC library shares connections among the clients of a process,
 * also one that waits for an address that swallows packets: the kernel gives that up after two minutes, and a new client waits with it.
 */
export const OWN_CONNECTION = { 'grpc.use_local_subchannel_pool': 1 } as const;

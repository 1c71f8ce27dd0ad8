const LATENT = 24;
const CENTRES = 200;

/** Points of a space of 24 dimensions around 200 centres, laid into `dim`: about as hard to search as embeddings are. Each call gives others of the same kind. */
export function latentPoints(dim: number, random: () => number): (count: number) => Float32Array {
  const normal = (): number => random() + random() + random() + random() - 2;
  const mix = Float32Array.from({ length: LATENT * dim }, normal);
  const centres = Float32Array.from({ length: CENTRES * LATENT }, () => normal() * 2);
  return (count) => {
    const vectors = new Float32Array(count * dim);
    const latent = new Float64Array(LATENT);
    for (let row = 0; row < count; row++) {
      const centre = Math.floor(random() * CENTRES) * LATENT;
      for (let i = 0; i < LATENT; i++) latent[i] = (centres[centre + i] ?? 0) + normal();
      for (let to = 0; to < dim; to++) {
        let sum = 0.05 * normal();
        for (let i = 0; i < LATENT; i++) sum += (latent[i] ?? 0) * (mix[i * dim + to] ?? 0);
        vectors[row * dim + to] = sum / 8;
      }
    }
    return vectors;
  };
}

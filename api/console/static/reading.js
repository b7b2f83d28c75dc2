// Reading survives a change of the network, for example from Wi-Fi to mobile data: the browser then breaks off all requests.

const PAUSE_MS = 500;

/**
 * Runs something that only reads. If it fails without a response, it is run once more.
 *
 * @template Result
 * @param {() => Promise<Result>} read
 * @returns {Promise<Result>}
 */
export async function reading(read) {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof TypeError)) {
      throw error; // only a request without a response fails so
    }
    await new Promise((resume) => setTimeout(resume, PAUSE_MS));
    return await read();
  }
}
